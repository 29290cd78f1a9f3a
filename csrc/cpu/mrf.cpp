// Torch's view of mrf.
#include "mrf_plan.h"

namespace fastvoc {
namespace {

// Every block of every item by itself, then their means.
template <class Element>
void run_blocks(const Convolutions<Element>& table, const MrfArgs& args, const Filter<Element>* filters,
                const AnyBatch& batch, const OutputOf<Outer<Element>>& out) {
  const int width = args.width();
  const int64_t rows = batch.steps() * width, tasks = batch.items() * args.blocks, threads = torch::stable::get_num_threads();
  const Tensor results = torch::stable::empty({tasks, rows}, torch::headeronly::ScalarType::Float);
  float* const data = results.mutable_data_ptr<float>();
  const Grant grant(std::min(tasks, threads), threads);
  fork_join(tasks, grant.count(), [&](int64_t task) {
    const int64_t item = task / args.blocks, steps = batch.length(item);
    const int block = as_int(task % args.blocks);
    if (steps == 0) return;
    float* memory = Arena::mine().floats(static_cast<std::size_t>(mrf_block_floats(args, block, steps)));
    table.mrf_block(args, filters, block, batch.source(item), data + task * rows, steps, memory);
  });
  over_items(batch.items(), 256, [&](int64_t item) { return batch.length(item); }, [&](int64_t item, int64_t begin, int64_t end) {
    table.mrf_mean(args, data + item * args.blocks * rows, batch.steps(), out.sink(item), begin, end);
  });
}

template <class Element>
Tensor run(const MrfPlan& plan, const MrfCall& call) {
  const MrfArgs& args = plan.args();
  const auto filters = plan.filters<Element>();
  const AnyBatch batch(call.x, args.channels, call.lengths);
  const OutputOf<Outer<Element>> out(batch.items(), args.channels, batch.steps());
  const auto& table = engine().convolutions<Element>();
  const auto steps = [&](int64_t item) { return batch.length(item); };
  const int64_t threads = torch::stable::get_num_threads();
  const MrfCut cut = batch.items() < threads ? mrf_cut(args, batch.steps(), threads) : MrfCut::kRanges;
  if (cut == MrfCut::kBlocks) {
    run_blocks<Element>(table, args, filters.data(), batch, out);
    return out.tensor(steps);
  }
  const auto work = [&](int64_t item, int64_t begin, int64_t end, const Team* team) {
    MrfArgs mine = args;
    mine.team = team;
    const int64_t needed = workspace_floats(mine, end - begin);
    float* memory = Arena::mine().floats(static_cast<std::size_t>(needed));
    table.mrf(mine, filters.data(), batch.source(item), out.sink(item), begin, end, memory);
  };
  const int64_t shortest = cut == MrfCut::kTeam ? batch.steps() + 1 : std::max(args.around() / 2, 24);
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
