// Torch's view of conv2d.
#include "cuda/conv2d.cuh"

#include "cuda/glue.h"

namespace fastvoc {
namespace {

Tensor conv2d(Tensor x, Tensor weight, Tensor bias, MaybeTensor residual, MaybeTensor lengths, Ints shape, double slope) {
  STD_TORCH_CHECK(shape.size() == 6, "conv2d: expected 6 shape values");
  STD_TORCH_CHECK(shape[4] >= shape[5] && shape[5] > 0, "conv2d: expected no more bands pooled than there are");
  check_input(x);
  const DeviceGuard guard(x.get_device_index());
  Tensor out;
  for_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    cuda::Conv2dArgs<T> args{};
    const std::int64_t* value = shape.data();
    for (int* field : {&args.cout, &args.cin, &args.time, &args.across, &args.bands, &args.pool}) {
      *field = static_cast<int>(*value++);
    }
    args.slope = static_cast<float>(slope);
    args.x = view<T>(x, std::int64_t{args.bands} * args.cin, "x");
    args.weight = packed<T>(weight, x, args.weights(), "weight");
    args.bias = packed<T>(bias, x, cuda::padded(args.cout), "bias");
    args.lengths = maybe_lengths(lengths, x);
    args.steps = x.size(2);
    if (residual) {
      check_like(*residual, x, "residual");
      args.residual = view<T>(*residual, std::int64_t{args.bands} * args.cout, "residual");
      STD_TORCH_CHECK(residual->size(0) == x.size(0) && residual->size(2) == x.size(2), "residual: expected the steps of x");
    }
    out = new_rows(x, std::int64_t{args.made()} * args.cout, x.size(2));
    args.y = rows_view<T>(out);
    cuda::conv2d(args, x.size(0), current_stream(x));
  });
  check_launch();
  return torch::stable::transpose(out, 1, 2);
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CUDA, m) { m.impl("conv2d", TORCH_BOX(&fastvoc::conv2d)); }
