// Torch's view of depthwise.
#include "glue.h"

namespace fastvoc {
namespace {

template <class Element>
Tensor run(const DepthwiseArgs& args, const DepthwiseCall& call) {
  const BatchOf<Element> batch(call.x, args.channels, call.lengths);
  STD_TORCH_CHECK(args.made(batch.steps()) > 0, "depthwise: x: fewer steps than the kernel spans");
  const OutputOf<Element> out(batch.items(), args.channels, args.made(batch.steps()));
  const auto kernel = engine().kernels<Element>().depthwise;
  const auto steps = [&](int64_t item) { return args.made(batch.length(item)); };
  over_items(batch.items(), 64, steps, [&](int64_t item, int64_t begin, int64_t end) {
    float* memory = Arena::mine().floats(static_cast<std::size_t>(workspace_floats(args, end - begin)));
    kernel(args, batch.source(item), out.sink(item), begin, end, memory);
  });
  return out.tensor(steps);
}

Tensor depthwise(const DepthwiseCall& call) {
  const int64_t width = padded(call.channels);
  const Act pre = activations(call, 1, [&](std::size_t) { return call.channels; })[0];
  const DepthwiseArgs args{packed(call.weight, call.kernel * width, "weight"),
                           packed(call.bias, width, "bias"),
                           call.channels,
                           call.kernel,
                           call.dilation,
                           call.left,
                           call.right,
                           pre};
  return by_type(call.x, [&](auto element) { return run<decltype(element)>(args, call); });
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CPU, m) { m.impl("depthwise", fastvoc::boxed<fastvoc::DepthwiseCall, fastvoc::depthwise>); }
