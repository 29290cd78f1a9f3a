// Torch's view of upsample.
#include "cuda/upsample.cuh"

#include "cuda/conv_tile.cuh"
#include "cuda/glue.h"

namespace fastvoc {
namespace {

Tensor upsample(Tensor x, Tensor weight, Tensor bias, MaybeTensor lengths, Ints shape, Ints kinds, Doubles slopes,
                MaybeTensor curves) {
  STD_TORCH_CHECK(shape.size() == 7, "upsample: expected 7 shape values");
  STD_TORCH_CHECK(shape[4] >= 0, "upsample: the left crop must not be negative");
  check_input(x);
  const DeviceGuard guard(x.get_device_index());
  const auto acts = activations(kinds, slopes, curves, x, 1, [&](std::size_t) { return cuda::padded(shape[1]); });
  Tensor out;
  for_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    const auto run = [&](auto args, const auto& launch) {
      set_common<T>(args, x, weight, bias, lengths);
      args.pre = acts[0];
      out = new_rows(x, args.cout, args.made(args.steps));
      args.y = rows_view<T>(out);
      launch(args);
    };
    if (shape[6] == 0) {
      cuda::UpsampleArgs<T> args{};
      args.set(shape.data());
      return run(args, [&](const auto& ready) { cuda::upsample(ready, x.size(0), current_stream(x)); });
    }
    if constexpr (std::is_same_v<T, float>) {
      STD_TORCH_CHECK(false, "CUDA: upsample's tiles compute in float16 and bfloat16");
    } else {
      run(cuda::upsample_tile<T>(shape.data()),
          [&](const auto& ready) { cuda::conv_tile(ready, x.size(0), current_stream(x)); });
    }
  });
  check_launch();
  return torch::stable::transpose(out, 1, 2);
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CUDA, m) { m.impl("upsample", TORCH_BOX(&fastvoc::upsample)); }
