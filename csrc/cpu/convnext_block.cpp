// Torch's view of convnext_block.
#include "layer_norm_glue.h"

namespace fastvoc {
namespace {

void run_block(const ConvNextBlockArgs<float>& args, const Source& source, const Sink& sink, int64_t begin, int64_t end,
               float* memory) {
  engine().kernels<float>().convnext_block(args, source, sink, begin, end, memory);
}

void run_block(const ConvNextBlockArgs<Bf16>& args, const SourceOf<Bf16>& source, const SinkOf<Bf16>& sink,
               int64_t begin, int64_t end, float* memory) {
  engine().kernels<Bf16>().convnext_block(args, source, sink, begin, end, memory);
}

template <class Element>
Tensor run(const Tensor& x, const Tensor& norm_weight, const Tensor& norm_bias, const Tensor& weight,
           const std::optional<Tensor>& row, const std::optional<Tensor>& lengths, int64_t margin, double eps,
           ConvNextBlockArgs<Element> args) {
  args.weight = packed<Element>(weight, args.weights(), "weight");
  const BatchOf<Element> batch(x, args.channels, lengths);
  const NormRows norm(norm_weight, norm_bias, row, batch.items(), args.channels, eps);
  STD_TORCH_CHECK(margin >= 0 && (margin == 0 || (!lengths && batch.steps() > 2 * margin)),
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
    run_block(mine, batch.source(item), sink, begin + margin, end + margin, memory);
  };
  over_items_or_panels(batch.items(), 24, steps, padded(args.channels) / kPanelWidth, work);
  for (int64_t i = 0; i < batch.items(); ++i) out.clear_tail(i, steps(i));
  return out.tensor();
}

template <class Element>
ConvNextBlockArgs<Element> block_args(const Ints& shape, const Tensor& depthwise, const Tensor& expand_bias,
                                      const Tensor& project_bias) {
  STD_TORCH_CHECK(shape.size() == 5, "convnext_block: expected 5 shape values");
  ConvNextBlockArgs<Element> args{};
  args.channels = as_int(shape[0]);
  args.hidden = as_int(shape[1]);
  args.kernel = as_int(shape[2]);
  args.chunk = as_int(shape[3]);
  STD_TORCH_CHECK(args.kernel % 2 == 1 && args.chunk > 0 && args.chunk % kPanelWidth == 0,
                  "convnext_block: expected an odd kernel and whole panels of hidden channels");
  args.depthwise = packed(depthwise, (args.kernel + 1) * int64_t{padded(args.channels)}, "depthwise");
  args.expand_bias = packed(expand_bias, padded(args.hidden), "expand bias");
  args.project_bias = packed(project_bias, padded(args.channels), "project bias");
  return args;
}

// The last value of `shape`: steps left out at either end, those of a stream's chunk that are only read.
Tensor convnext_block(Tensor x, Tensor depthwise, Tensor norm_weight, Tensor norm_bias, Tensor weight,
                      Tensor expand_bias, Tensor project_bias, std::optional<Tensor> row, std::optional<Tensor> lengths,
                      Ints shape, double eps) {
  if (x.scalar_type() == scalar_type<Bf16>) {
    const auto args = block_args<Bf16>(shape, depthwise, expand_bias, project_bias);
    return run(x, norm_weight, norm_bias, weight, row, lengths, shape[4], eps, args);
  }
  const auto args = block_args<float>(shape, depthwise, expand_bias, project_bias);
  return run(x, norm_weight, norm_bias, weight, row, lengths, shape[4], eps, args);
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CPU, m) { m.impl("convnext_block", TORCH_BOX(&fastvoc::convnext_block)); }
