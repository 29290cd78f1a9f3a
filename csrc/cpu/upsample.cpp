// Torch's view of upsample.
#include "glue.h"

namespace fastvoc {
namespace {

template <class Element>
Tensor run(UpsampleArgs args, const UpsampleCall& call) {
  using Given = Outer<Element>;
  const bool merged = args.merged() && !std::is_same_v<Element, std::uint8_t>;
  const int width = merged ? args.stride * args.cout : padded(args.cout);
  const int taps = merged ? args.kernel / args.stride : args.kernel;
  const int64_t weights = int64_t{1} * width * taps * grouped<Element>(args.cin);
  args.paired = std::is_same_v<Element, float> && merged && taps == 2 && call.weight.numel() > weights;
  const int64_t held = args.paired ? weights / 2 * 3 : weights;
  const auto filter = Filters<Element>(call.weight, held, call.bias, 1, width, args.stride).next(held);
  const AnyBatch batch(call.x, args.cin, call.lengths);
  const auto made = [&](int64_t n) { return (n - 1) * args.stride + args.kernel - args.left - args.right; };
  const OutputOf<Given> out(batch.items(), args.cout, made(batch.steps()));
  const auto& table = engine().convolutions<Element>();
  const auto steps = [&](int64_t item) { return made(batch.length(item)); };
  const auto work = [&](int64_t item, int64_t begin, int64_t end, const Team* team) {
    UpsampleArgs mine = args;
    mine.team = team;
    const int64_t count = workspace_floats(args, begin, end);
    float* memory = Arena::mine().floats(static_cast<std::size_t>(count));
    table.upsample(mine, filter, batch.source(item), out.sink(item), begin, end, memory);
  };
  // Weights that no L2 cache, or no L3, holds are not read by every thread for few steps.
  const int64_t bytes = held * static_cast<int64_t>(sizeof(Element));
  const int64_t fewest = (bytes > 1 << 24 ? 144 : bytes > 1 << 20 ? 36 : 12) * (args.paired ? 2 : 1);
  over_items_or_panels(batch.items(), fewest * args.stride, steps, width / kPanelWidth, work);
  return out.tensor(steps);
}

Tensor upsample(const UpsampleCall& call) {
  UpsampleArgs args{call.cout, call.cin, call.kernel, call.stride, call.left, call.right, {}};
  args.pre = activations(call, 1, [&](std::size_t) { return args.cin; })[0];
  STD_TORCH_CHECK(args.left >= 0, "upsample: the left crop must not be negative");
  return by_element(call.weight, [&](auto element) { return run<decltype(element)>(args, call); });
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CPU, m) { m.impl("upsample", fastvoc::boxed<fastvoc::UpsampleCall, fastvoc::upsample>); }
