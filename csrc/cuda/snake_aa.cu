// Torch's view of snake_aa.
#include "cuda/snake_aa.cuh"

#include "cuda/glue.h"

namespace fastvoc {
namespace {

Tensor snake_aa(const SnakeAaCall& call) {
  const Tensor& x = call.x;
  check_input(x);
  const DeviceGuard guard(x.get_device_index());
  const Tensor out = new_rows(x, x.size(1), x.size(2));
  for_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    cuda::SnakeAaArgs<T> args{};
    args.x = view<T>(x, x.size(1), "x");
    args.y = rows_view<T>(out);
    args.alpha = packed_as<float>(call.alpha, x, ScalarType::Float, x.size(1), "alpha");
    args.inverse = packed_as<float>(call.inverse, x, ScalarType::Float, x.size(1), "inverse");
    args.taps = packed_as<float>(call.taps, x, ScalarType::Float, cuda::kAaTaps, "taps");
    args.lengths = maybe_lengths(call.lengths, x);
    args.steps = x.size(2);
    args.channels = static_cast<int>(x.size(1));
    cuda::snake_aa(args, x.size(0), current_stream(x));
  });
  check_launch();
  return torch::stable::transpose(out, 1, 2);
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CUDA, m) {
  m.impl("snake_aa", fastvoc::boxed<fastvoc::SnakeAaCall, fastvoc::snake_aa>);
}
