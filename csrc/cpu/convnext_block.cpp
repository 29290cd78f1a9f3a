// Torch's view of convnext_block.
#include "layer_norm_glue.h"

namespace fastvoc {
namespace {

template <class Element>
Tensor run(const ConvnextBlockCall& call) {
  ConvNextBlockArgs<Element> args{};
  args.channels = call.channels;
  args.hidden = call.hidden;
  args.kernel = call.kernel;
  args.chunk = call.chunk;
  STD_TORCH_CHECK(args.kernel % 2 == 1 && args.chunk > 0 && args.chunk % kPanelWidth == 0,
                  "convnext_block: expected an odd kernel and whole panels of hidden channels");
  args.depthwise = packed(call.depthwise, (args.kernel + 1) * int64_t{padded(args.channels)}, "depthwise");
  args.expand_bias = packed(call.expand_bias, padded(args.hidden), "expand bias");
  args.project_bias = packed(call.project_bias, padded(args.channels), "project bias");
  args.weight = packed<Element>(call.weight, args.weights(), "weight");
  const BatchOf<Element> batch(call.x, args.channels, call.lengths);
  const NormRows norm(call.norm_weight, call.norm_bias, call.row, batch.items(), args.channels, call.eps);
  const int64_t margin = call.margin;
  STD_TORCH_CHECK(margin >= 0 && (margin == 0 || (!call.lengths && batch.steps() > 2 * margin)),
                  "convnext_block: a margin of ", margin, " steps leaves nothing");
  const OutputOf<Element> out(batch.items(), args.channels, batch.steps() - 2 * margin);
  const auto steps = [&](int64_t item) { return batch.length(item) - 2 * margin; };
  const auto work = [&](int64_t item, int64_t begin, int64_t end, const Team* team) {
    ConvNextBlockArgs<Element> mine = args;
    mine.norm = norm.item(item);
    mine.team = team;
    float* memory = Arena::mine().floats(static_cast<std::size_t>(workspace_floats(mine, end - begin)));
    SinkOf<Element> sink = out.sink(item);
    sink.data -= margin * args.channels;
    engine().kernels<Element>().convnext_block(mine, batch.source(item), sink, begin + margin, end + margin, memory);
  };
  over_items_or_panels(batch.items(), 24, steps, padded(args.channels) / kPanelWidth, work);
  return out.tensor(steps);
}

Tensor convnext_block(const ConvnextBlockCall& call) {
  return by_type(call.x, [&](auto element) { return run<decltype(element)>(call); });
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CPU, m) {
  m.impl("convnext_block", fastvoc::boxed<fastvoc::ConvnextBlockCall, fastvoc::convnext_block>);
}
