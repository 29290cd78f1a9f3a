// Torch's view of group_norm_act.
#include "glue.h"

namespace fastvoc {
namespace {

template <class Element>
Tensor run(const GroupNormArgs& args, const GroupNormActCall& call) {
  const MaybeTensor& residual = call.residual;
  const BatchOf<Element> batch(call.x, args.channels, call.lengths);
  if (residual) check_elements<Element>(*residual, "residual");
  const auto& table = engine().kernels<Element>().norms;
  const std::int64_t step = moment_steps(args);
  const auto floats = static_cast<std::size_t>(workspace_floats(args));

  std::vector<int64_t> first{0};
  for (int64_t i = 0; i < batch.items(); ++i) first.push_back(first.back() + ceil_div(batch.length(i), step));
  std::vector<Moments> parts(static_cast<std::size_t>(first.back()));
  fork_join(first.back(), torch::stable::get_num_threads(), [&](int64_t block) {
    int64_t item = 0;
    while (first[static_cast<std::size_t>(item + 1)] <= block) ++item;
    const int64_t from = (block - first[static_cast<std::size_t>(item)]) * step;
    const int64_t to = std::min(from + step, batch.length(item));
    parts[static_cast<std::size_t>(block)] = table.moments(args, batch.source(item), from, to, Arena::mine().floats(floats));
  });
  std::vector<Moments> whole(static_cast<std::size_t>(batch.items()));
  for (std::size_t i = 0; i < whole.size(); ++i) {
    for (int64_t b = first[i]; b < first[i + 1]; ++b) whole[i] = together(whole[i], parts[static_cast<std::size_t>(b)]);
  }

  const OutputOf<Element> out(batch.items(), args.channels, batch.steps());
  const auto steps = [&](int64_t item) { return batch.length(item); };
  over_items(batch.items(), 24, steps, [&](int64_t item, int64_t begin, int64_t end) {
    float* memory = Arena::mine().floats(floats);
    SourceOf<Element> added{};
    if (residual) added = source_of<Element>(*residual, item, steps(item), args.channels);
    table.group_norm_act(args, whole[static_cast<std::size_t>(item)], call.eps, batch.source(item), residual ? &added : nullptr,
                         out.sink(item), begin, end, memory);
  });
  return out.tensor(steps);
}

Tensor group_norm_act(const GroupNormActCall& call) {
  GroupNormArgs args{};
  args.channels = as_int(call.x.size(1));
  const int width = padded(args.channels);
  args.weight = packed(call.weight, width, "weight");
  args.bias = packed(call.bias, width, "bias");
  args.act = activations(call, 1, [&](std::size_t) { return args.channels; })[0];
  return by_type(call.x, [&](auto element) { return run<decltype(element)>(args, call); });
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CPU, m) {
  m.impl("group_norm_act", fastvoc::boxed<fastvoc::GroupNormActCall, fastvoc::group_norm_act>);
}
