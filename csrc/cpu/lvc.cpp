// Torch's view of lvc.
#include "glue.h"

namespace fastvoc {
namespace {

template <class Element>
Tensor run(const LvcCall& call) {
  const Tensor &kernels = call.kernels, &biases = call.biases;
  const MaybeTensor& residual = call.residual;
  const int64_t hop = call.hop;
  check_elements<Element>(kernels, "kernels");
  check_elements<Element>(biases, "biases");
  STD_TORCH_CHECK(kernels.dim() == 5 && kernels.size(1) % 2 == 1 && hop > 0, "kernels: expected [B, odd K, C_in, C_out, L]");
  const LvcArgs args{as_int(kernels.size(1)), as_int(kernels.size(2)), as_int(kernels.size(3)), call.hop, call.gated};
  const BatchOf<Element> batch(call.x, args.cin, call.lengths);
  const int64_t items = batch.items(), frames = kernels.size(4);
  STD_TORCH_CHECK(kernels.size(0) == items && batch.steps() == frames * hop && (!call.gated || args.cout % 2 == 0),
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
  const auto& kernel = engine().kernels<Element>().lvc;
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
    if (residual) added = source_of<Element>(*residual, item, steps(item), args.made());
    kernel(args, own, batch.source(item), residual ? &added : nullptr, out.sink(item), begin, end, memory);
  });
  return out.tensor(steps);
}

Tensor lvc(const LvcCall& call) {
  return by_type(call.x, [&](auto element) { return run<decltype(element)>(call); });
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CPU, m) { m.impl("lvc", fastvoc::boxed<fastvoc::LvcCall, fastvoc::lvc>); }
