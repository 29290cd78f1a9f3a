// Torch's view of conv2d. Time and frequency come as rows: x is [B, F * C_in, T], the channels of a frequency together.
#include "glue.h"

namespace fastvoc {
namespace {

Tensor conv2d(const Conv2dCall& call) {
  STD_TORCH_CHECK(call.x.dim() == 3 && call.cin > 0 && call.x.size(1) % call.cin == 0, "x: expected [B, F * ", call.cin, ", T]");
  const int bands = as_int(call.x.size(1) / call.cin);
  STD_TORCH_CHECK(call.time % 2 == 1 && call.across % 2 == 1 && call.pool >= 1 && call.pool <= bands,
                  "conv2d: expected odd kernels and a pool of 1..", bands);
  Conv2dArgs args{nullptr, nullptr, call.cout, call.cin, call.time, call.across, bands, call.pool, static_cast<float>(call.slope)};
  const int width = padded(args.cout);
  args.weight = packed(call.weight, args.panel_floats() * (width / kPanelWidth) * args.time, "weight");
  args.bias = packed(call.bias, width, "bias");

  const Batch batch(call.x, int64_t{1} * bands * args.cin, call.lengths);
  const Output out(batch.items(), bands / args.pool * args.cout, batch.steps());
  if (const MaybeTensor& residual = call.residual) {
    check_floats(*residual, "residual");
    STD_TORCH_CHECK(residual->dim() == 3 && residual->size(0) == batch.items() && residual->size(2) == batch.steps() &&
                        residual->size(1) == int64_t{1} * bands * args.cout,
                    "residual: expected [", batch.items(), ", ", bands * args.cout, ", ", batch.steps(), "]");
  }
  const FloatKernels& table = engine().only_floats;
  const auto steps = [&](int64_t item) { return batch.length(item); };
  over_items(batch.items(), 4, steps, [&](int64_t item, int64_t begin, int64_t end) {
    float* memory = Arena::mine().floats(static_cast<std::size_t>(workspace_floats(args, end - begin)));
    Source added{};
    if (call.residual) added = source_of<float>(*call.residual, item, steps(item), args.cout);
    table.conv2d(args, batch.source(item), call.residual ? &added : nullptr, out.sink(item), begin, end, memory);
  });
  return out.tensor(steps);
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CPU, m) { m.impl("conv2d", fastvoc::boxed<fastvoc::Conv2dCall, fastvoc::conv2d>); }
