// Torch's view of conv1d.
#include "cuda/conv.cuh"
#include "cuda/glue.h"

namespace fastvoc {
namespace {

Tensor conv1d(Tensor x, Tensor weight, Tensor bias, MaybeTensor residual, MaybeTensor lengths, Ints shape, Ints kinds,
              Doubles slopes, MaybeTensor curves) {
  STD_TORCH_CHECK(shape.size() == 9, "conv1d: expected 9 shape values");
  STD_TORCH_CHECK(shape[7] >= 0 && shape[7] <= 2, "conv1d: unknown padding ", shape[7]);
  check_input(x);
  const DeviceGuard guard(x.get_device_index());
  const auto acts = activations(kinds, slopes, curves, x, 2, [&](std::size_t i) { return cuda::padded(shape[1 - i]); });
  Tensor out;
  for_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    check_tiles<T>(shape[8]);
    cuda::convolve<T>(shape.data(), x.size(0), current_stream(x), [&](auto& args) {
      set_common<T>(args, x, weight, bias, lengths);
      args.pre = acts[0];
      args.post = acts[1];
      if (residual) {
        check_like(*residual, x, "residual");
        args.residual = view<T>(*residual, args.cout, "residual");
        STD_TORCH_CHECK(residual->size(0) == x.size(0) && residual->size(2) == args.made(args.steps),
                        "residual: expected the shape of the output");
      }
      out = new_rows(x, args.cout, args.made(args.steps));
      args.y = rows_view<T>(out);
    });
  });
  check_launch();
  return torch::stable::transpose(out, 1, 2);
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CUDA, m) { m.impl("conv1d", TORCH_BOX(&fastvoc::conv1d)); }
