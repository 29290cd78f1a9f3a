// Torch's view of conv2d.
#include "cuda/conv2d.cuh"

#include "cuda/glue.h"

namespace fastvoc {
namespace {

Tensor conv2d(const Conv2dCall& call) {
  const Tensor& x = call.x;
  check_input(x);
  STD_TORCH_CHECK(call.cin > 0 && call.pool > 0 && x.size(1) >= std::int64_t{call.pool} * call.cin,
                  "conv2d: expected no more bands pooled than there are");
  const DeviceGuard guard(x.get_device_index());
  Tensor out;
  for_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    cuda::Conv2dArgs<T> args{};
    args.cout = call.cout;
    args.cin = call.cin;
    args.time = call.time;
    args.across = call.across;
    args.bands = static_cast<int>(x.size(1) / call.cin);
    args.pool = call.pool;
    args.slope = static_cast<float>(call.slope);
    args.x = view<T>(x, std::int64_t{args.bands} * args.cin, "x");
    args.weight = packed<T>(call.weight, x, args.weights(), "weight");
    args.bias = packed<T>(call.bias, x, cuda::padded(args.cout), "bias");
    args.lengths = maybe_lengths(call.lengths, x);
    args.steps = x.size(2);
    args.residual = further<T>(call.residual, x, std::int64_t{args.bands} * args.cout, x.size(2), "residual");
    out = new_rows(x, std::int64_t{args.made()} * args.cout, x.size(2));
    args.y = rows_view<T>(out);
    cuda::conv2d(args, x.size(0), current_stream(x));
  });
  check_launch();
  return torch::stable::transpose(out, 1, 2);
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CUDA, m) { m.impl("conv2d", fastvoc::boxed<fastvoc::Conv2dCall, fastvoc::conv2d>); }
