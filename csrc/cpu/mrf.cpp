// Torch's view of mrf.
#include "mrf_plan.h"

namespace fastvoc {
namespace {

template <class Element>
Tensor run(const MrfPlan& plan, const Tensor& x, const Tensor& weight, const Tensor& bias,
           const std::optional<Tensor>& lengths) {
  const MrfArgs& args = plan.args();
  const auto filters = plan.filters<Element>(weight, bias);
  const AnyBatch batch(x, args.channels, lengths);
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
  const bool shared = batch.items() < threads && args.wants_team(batch.steps(), threads);
  const int64_t shortest = shared ? batch.steps() + 1 : std::max(args.around() / 2, 24);
  over_items_or_panels(batch.items(), shortest, steps, padded(args.channels) / kPanelWidth, work, args.granule);
  for (int64_t i = 0; i < batch.items(); ++i) out.clear_tail(i, steps(i));
  return out.tensor();
}

Tensor mrf(Tensor x, Tensor weight, Tensor bias, std::optional<Tensor> lengths, Ints kernels, Ints dilations, Ints schemes,
           Ints layers, int64_t depth, int64_t pad_mode, Ints kinds, std::vector<double> slopes, std::optional<Tensor> curves) {
  const int channels = as_int(x.size(1));
  const MrfPlan plan(channels, kernels, dilations, schemes, layers, depth, pad_mode, kinds, slopes, curves);
  return by_element(weight, [&](auto element) { return run<decltype(element)>(plan, x, weight, bias, lengths); });
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CPU, m) { m.impl("mrf", TORCH_BOX(&fastvoc::mrf)); }
