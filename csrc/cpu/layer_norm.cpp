// Torch's view of layer_norm.
#include "layer_norm_glue.h"

namespace fastvoc {
namespace {

template <class Element>
Tensor run(const LayerNormCall& call) {
  const int channels = as_int(call.x.size(1));
  const BatchOf<Element> batch(call.x, channels, call.lengths);
  const NormRows norm(call.weight, call.bias, call.row, batch.items(), channels, call.eps);
  const OutputOf<Element> out(batch.items(), channels, batch.steps());
  const auto steps = [&](int64_t item) { return batch.length(item); };
  const auto& kernel = engine().kernels<Element>().layer_norm;
  over_items(batch.items(), 64, steps, [&](int64_t item, int64_t begin, int64_t end) {
    const LayerNormArgs args = norm.item(item);
    float* memory = Arena::mine().floats(static_cast<std::size_t>(workspace_floats(args, end - begin)));
    kernel(args, batch.source(item), out.sink(item), begin, end, memory);
  });
  return out.tensor(steps);
}

Tensor layer_norm(const LayerNormCall& call) {
  return by_type(call.x, [&](auto element) { return run<decltype(element)>(call); });
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CPU, m) {
  m.impl("layer_norm", fastvoc::boxed<fastvoc::LayerNormCall, fastvoc::layer_norm>);
}
