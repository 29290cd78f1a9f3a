// Torch's view of layer_norm.
#include "layer_norm_glue.h"

namespace fastvoc {
namespace {

template <class Element, class Kernel>
Tensor run(const Tensor& x, const Tensor& weight, const Tensor& bias, const std::optional<Tensor>& row,
           const std::optional<Tensor>& lengths, double eps, const Kernel& kernel) {
  const int channels = as_int(x.size(1));
  const BatchOf<Element> batch(x, channels, lengths);
  const NormRows norm(weight, bias, row, batch.items(), channels, eps);
  const OutputOf<Element> out(batch.items(), channels, batch.steps());
  const auto steps = [&](int64_t item) { return batch.length(item); };
  over_items(batch.items(), 64, steps, [&](int64_t item, int64_t begin, int64_t end) {
    const LayerNormArgs args = norm.item(item);
    float* memory = Arena::mine().floats(static_cast<std::size_t>(workspace_floats(args, end - begin)));
    kernel(args, batch.source(item), out.sink(item), begin, end, memory);
  });
  for (int64_t i = 0; i < batch.items(); ++i) out.clear_tail(i, steps(i));
  return out.tensor();
}

Tensor layer_norm(Tensor x, Tensor weight, Tensor bias, std::optional<Tensor> row, std::optional<Tensor> lengths,
                  double eps) {
  if (x.scalar_type() == scalar_type<Bf16>) {
    return run<Bf16>(x, weight, bias, row, lengths, eps, engine().kernels<Bf16>().layer_norm);
  }
  return run<float>(x, weight, bias, row, lengths, eps, engine().kernels<float>().layer_norm);
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CPU, m) { m.impl("layer_norm", TORCH_BOX(&fastvoc::layer_norm)); }
