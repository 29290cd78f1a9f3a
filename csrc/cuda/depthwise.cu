// Torch's view of depthwise.
#include "cuda/depthwise.cuh"

#include "cuda/glue.h"

namespace fastvoc {
namespace {

Tensor depthwise(const DepthwiseCall& call) {
  const Tensor& x = call.x;
  check_input(x);
  STD_TORCH_CHECK(call.kernel >= 1 && call.dilation >= 1 && call.left >= 0 && call.right >= 0 &&
                      call.left + call.right == call.dilation * (call.kernel - 1),
                  "depthwise: expected the length kept");
  const DeviceGuard guard(x.get_device_index());
  const Tensor out = new_rows(x, call.channels, x.size(2));
  for_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    cuda::DepthwiseArgs<T> args{};
    args.channels = call.channels;
    args.width = static_cast<int>(cuda::padded(call.channels));
    args.kernel = call.kernel;
    args.dilation = call.dilation;
    args.left = call.left;
    args.x = view<T>(x, call.channels, "x");
    args.y = rows_view<T>(out);
    args.taps = packed_as<float>(call.weight, x, ScalarType::Float, std::int64_t{call.kernel} * args.width, "weight");
    args.bias = packed_as<float>(call.bias, x, ScalarType::Float, args.width, "bias");
    args.lengths = maybe_lengths(call.lengths, x);
    args.steps = x.size(2);
    args.pre = activations(call, 1, [&](std::size_t) { return std::int64_t{args.width}; })[0];
    STD_TORCH_CHECK(args.shared() <= cuda::shared_limit(), "depthwise: ", call.kernel, " taps are too many");
    cuda::depthwise(args, x.size(0), current_stream(x));
  });
  check_launch();
  return torch::stable::transpose(out, 1, 2);
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CUDA, m) {
  m.impl("depthwise", fastvoc::boxed<fastvoc::DepthwiseCall, fastvoc::depthwise>);
}
