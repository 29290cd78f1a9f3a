// Torch's view of mrf.
#include "mrf_plan.h"

namespace fastvoc {
namespace {

template <class Element>
Tensor run(const MrfPlan& plan, const MrfCall& call) {
  const MrfArgs& args = plan.args();
  const auto filters = plan.filters<Element>();
  const AnyBatch batch(call.x, args.channels, call.lengths);
  const OutputOf<Outer<Element>> out(batch.items(), args.channels, batch.steps());
  const auto& table = engine().convolutions<Element>();
  const auto steps = [&](int64_t item) { return batch.length(item); };
  const auto work = [&](int64_t item, int64_t begin, int64_t end, const Team* team) {
    MrfArgs mine = args;
    mine.team = team;
    const int64_t needed = workspace_floats(mine, end - begin);
    float* memory = Arena::mine().floats(static_cast<std::size_t>(needed));
    table.mrf(mine, filters.data(), batch.source(item), out.sink(item), begin, end, memory);
  };
  const int64_t threads = torch::stable::get_num_threads();
  const bool shared = batch.items() < threads && wants_team(args, batch.steps(), threads);
  const int64_t shortest = shared ? batch.steps() + 1 : std::max(args.around() / 2, 24);
  over_items_or_panels(batch.items(), shortest, steps, padded(args.channels) / kPanelWidth, work, args.granule);
  return out.tensor(steps);
}

Tensor mrf(const MrfCall& call) {
  const MrfPlan plan(call);
  return by_element(call.weight, [&](auto element) { return run<decltype(element)>(plan, call); });
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CPU, m) { m.impl("mrf", fastvoc::boxed<fastvoc::MrfCall, fastvoc::mrf>); }
