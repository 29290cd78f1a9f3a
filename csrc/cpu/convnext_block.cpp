// Torch's view of convnext_block.
#include "layer_norm_glue.h"

namespace fastvoc {
namespace {

Tensor convnext_block(Tensor x, Tensor depthwise, Tensor norm_weight, Tensor norm_bias, Tensor weight,
                      Tensor expand_bias, Tensor project_bias, std::optional<Tensor> row, std::optional<Tensor> lengths,
                      Ints shape, double eps) {
  STD_TORCH_CHECK(shape.size() == 5, "convnext_block: expected 5 shape values");
  ConvNextBlockArgs args{};
  args.channels = as_int(shape[0]);
  args.hidden = as_int(shape[1]);
  args.kernel = as_int(shape[2]);
  args.chunk = as_int(shape[3]);
  STD_TORCH_CHECK(args.kernel % 2 == 1 && args.chunk > 0 && args.chunk % kPanelWidth == 0,
                  "convnext_block: expected an odd kernel and whole panels of hidden channels");
  const int64_t width = padded(args.channels), hidden = padded(args.hidden);
  args.depthwise = packed(depthwise, (args.kernel + 1) * width, "depthwise");
  args.weight = packed(weight, hidden * args.channels + width * args.hidden, "weight");
  args.expand_bias = packed(expand_bias, hidden, "expand bias");
  args.project_bias = packed(project_bias, width, "project bias");

  const Batch batch(x, args.channels, lengths);
  const NormRows norm(norm_weight, norm_bias, row, batch.items(), args.channels, eps);
  // Steps left out at either end: those of a stream's chunk that are only read.
  const int64_t margin = shape[4];
  STD_TORCH_CHECK(margin >= 0 && (margin == 0 || (!lengths && batch.steps() > 2 * margin)),
                  "convnext_block: a margin of ", margin, " steps leaves nothing");
  const Output out(batch.items(), args.channels, batch.steps() - 2 * margin);
  const Engine& table = engine();
  const auto steps = [&](int64_t item) { return batch.length(item) - 2 * margin; };
  over_items(batch.items(), 24, steps, [&](int64_t item, int64_t begin, int64_t end) {
    ConvNextBlockArgs mine = args;
    mine.norm = norm.item(item);
    float* memory = Arena::mine().floats(static_cast<std::size_t>(workspace_floats(mine, end - begin)));
    Sink sink = out.sink(item);
    sink.data -= margin * args.channels;
    table.convnext_block(mine, batch.source(item), sink, begin + margin, end + margin, memory);
  });
  for (int64_t i = 0; i < batch.items(); ++i) out.clear_tail(i, steps(i));
  return out.tensor();
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CPU, m) { m.impl("convnext_block", TORCH_BOX(&fastvoc::convnext_block)); }
