// Torch's view of upsample.
#include "cuda/conv.cuh"
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
    check_tiles<T>(shape[6]);
    cuda::convolve_transposed<T>(shape.data(), x.size(0), current_stream(x), [&](auto& args) {
      set_common<T>(args, x, weight, bias, lengths);
      args.pre = acts[0];
      out = new_rows(x, args.cout, args.made(args.steps));
      args.y = rows_view<T>(out);
    });
  });
  check_launch();
  return torch::stable::transpose(out, 1, 2);
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CUDA, m) { m.impl("upsample", TORCH_BOX(&fastvoc::upsample)); }
