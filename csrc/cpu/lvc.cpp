// Torch's view of lvc.
#include "glue.h"

namespace fastvoc {
namespace {

template <class Element, class Kernel>
Tensor run(const Tensor& x, const Tensor& kernels, const Tensor& biases, const std::optional<Tensor>& residual,
           const std::optional<Tensor>& lengths, int64_t hop, bool gated, const Kernel& kernel) {
  check_elements<Element>(kernels, "kernels");
  check_elements<Element>(biases, "biases");
  STD_TORCH_CHECK(kernels.dim() == 5 && kernels.size(1) % 2 == 1 && hop > 0, "kernels: expected [B, odd K, C_in, C_out, L]");
  const LvcArgs args{as_int(kernels.size(1)), as_int(kernels.size(2)), as_int(kernels.size(3)), as_int(hop), gated};
  const BatchOf<Element> batch(x, args.cin, lengths);
  const int64_t items = batch.items(), frames = kernels.size(4);
  STD_TORCH_CHECK(kernels.size(0) == items && batch.steps() == frames * hop && (!gated || args.cout % 2 == 0),
                  "kernels: expected one of even C_out for each of the frames of x");
  STD_TORCH_CHECK(biases.dim() == 3 && biases.size(0) == items && biases.size(1) == args.cout && biases.size(2) == frames,
                  "biases: expected [B, C_out, L]");
  if (residual) {
    check_elements<Element>(*residual, "residual");
    STD_TORCH_CHECK(residual->dim() == 3 && residual->size(0) == items && residual->size(1) == args.made() &&
                        residual->size(2) == batch.steps(),
                    "residual: expected the shape of the output");
  }
  const OutputOf<Element> out(items, args.made(), batch.steps());
  const auto steps = [&](int64_t item) { return batch.length(item); };
  over_items(items, 24, steps, [&](int64_t item, int64_t begin, int64_t end) {
    float* memory = Arena::mine().floats(static_cast<std::size_t>(workspace_floats(args)));
    const LvcKernels<Element> own{elements<Element>(kernels) + item * kernels.stride(0),
                         kernels.stride(1),
                         kernels.stride(2),
                         kernels.stride(3),
                         kernels.stride(4),
                         elements<Element>(biases) + item * biases.stride(0),
                         biases.stride(1),
                         biases.stride(2)};
    SourceOf<Element> added{};
    if (residual) {
      added = {elements<Element>(*residual) + item * residual->stride(0), residual->stride(2), residual->stride(1),
               batch.length(item), args.made()};
    }
    kernel(args, own, batch.source(item), residual ? &added : nullptr, out.sink(item), begin, end, memory);
  });
  for (int64_t i = 0; i < items; ++i) out.clear_tail(i, steps(i));
  return out.tensor();
}

Tensor lvc(Tensor x, Tensor kernels, Tensor biases, std::optional<Tensor> residual, std::optional<Tensor> lengths,
           int64_t hop, bool gated) {
  if (x.scalar_type() == scalar_type<Bf16>) {
    return run<Bf16>(x, kernels, biases, residual, lengths, hop, gated, engine().kernels<Bf16>().lvc);
  }
  return run<float>(x, kernels, biases, residual, lengths, hop, gated, engine().kernels<float>().lvc);
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CPU, m) { m.impl("lvc", TORCH_BOX(&fastvoc::lvc)); }
