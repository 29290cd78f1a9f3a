// Torch's view of seanet_block.
#include "seanet_glue.h"

namespace fastvoc {
namespace {

template <class Element>
Tensor run(SeanetBlockArgs<Element> args, const SeanetBlockCall& call) {
  const Conv1dArgs& conv1 = args.conv1;
  args.weight1 = packed<Element>(call.weight1, int64_t{1} * args.hidden() * conv1.kernel * args.channels(), "weight1");
  args.weight2 = packed<Element>(call.weight2, int64_t{1} * padded(args.cout) * args.inputs(), "weight2");
  args.bias = packed(call.bias2, padded(args.cout), "bias2");
  const BatchOf<Element> batch(call.x, conv1.cin, call.lengths);
  const int64_t lost = args.span() - 1 - conv1.left - conv1.right;
  STD_TORCH_CHECK(args.shift >= 0 && args.shift <= lost, "seanet_block: shift beyond the input");
  const auto steps = [&](int64_t item) { return batch.length(item) - lost; };
  for (int64_t i = 0; i < batch.items(); ++i) {
    STD_TORCH_CHECK(steps(i) > 0, "seanet_block: fewer steps than the kernel spans");
  }
  const OutputOf<Element> out(batch.items(), args.cout, batch.steps() - lost);
  const auto& kernel = engine().kernels<Element>().seanet_block;
  over_items(batch.items(), 24, steps, [&](int64_t item, int64_t begin, int64_t end) {
    float* memory = Arena::mine().floats(static_cast<std::size_t>(workspace_floats(args, end - begin)));
    std::vector<Element> longer;
    const SourceOf<Element> source = lengthened(batch.source(item), reflected_steps(conv1), longer);
    kernel(args, source, out.sink(item), begin, end, memory);
  });
  return out.tensor(steps);
}

Tensor seanet_block(const SeanetBlockCall& call) {
  Conv1dArgs conv1{call.hidden, call.channels, call.kernel, 1, call.dilation, call.left, call.right, as_pad(call.pad), {}, {}};
  STD_TORCH_CHECK(!call.identity || call.out == conv1.cin, "seanet_block: the input itself has other channels");
  const auto acts = activations(call, 2, [&](std::size_t i) { return i == 0 ? conv1.cin : conv1.cout; });
  conv1.pre = acts[0];
  conv1.post = acts[1];
  const float* bias1 = packed(call.bias1, padded(conv1.cout), "bias1");
  return by_type(call.x, [&](auto element) {
    using Element = decltype(element);
    const SeanetBlockArgs<Element> args{conv1, nullptr, nullptr, nullptr, call.out, call.identity, call.shift, bias1};
    return call.norms ? seanet_block_normed(args, call) : run(args, call);
  });
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CPU, m) {
  m.impl("seanet_block", fastvoc::boxed<fastvoc::SeanetBlockCall, fastvoc::seanet_block>);
}
