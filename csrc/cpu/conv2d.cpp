// Torch's view of conv2d. Time and frequency come as rows: x is [B, F * C_in, T], the channels of a frequency together.
#include "glue.h"

namespace fastvoc {
namespace {

Tensor conv2d(Tensor x, Tensor weight, Tensor bias, std::optional<Tensor> residual, std::optional<Tensor> lengths, Ints shape,
              double slope) {
  STD_TORCH_CHECK(shape.size() == 6, "conv2d: expected 6 shape values");
  Conv2dArgs args{};
  args.cout = as_int(shape[0]);
  args.cin = as_int(shape[1]);
  args.time = as_int(shape[2]);
  args.taps = as_int(shape[3]);
  args.bands = as_int(shape[4]);
  args.pool = as_int(shape[5]);
  args.slope = static_cast<float>(slope);
  STD_TORCH_CHECK(args.time % 2 == 1 && args.taps % 2 == 1 && args.pool >= 1 && args.pool <= args.bands,
                  "conv2d: expected odd kernels and a pool of 1..", args.bands);
  const int width = padded(args.cout);
  args.weight = packed(weight, args.panel_floats() * (width / kPanelWidth) * args.time, "weight");
  args.bias = packed(bias, width, "bias");

  const Batch batch(x, int64_t{1} * args.bands * args.cin, lengths);
  const Output out(batch.items(), args.bands / args.pool * args.cout, batch.steps());
  if (residual) {
    check_floats(*residual, "residual");
    STD_TORCH_CHECK(residual->dim() == 3 && residual->size(0) == batch.items() && residual->size(2) == batch.steps() &&
                        residual->size(1) == int64_t{1} * args.bands * args.cout,
                    "residual: expected [", batch.items(), ", ", args.bands * args.cout, ", ", batch.steps(), "]");
  }
  const FloatKernels& table = engine().only_floats;
  const auto steps = [&](int64_t item) { return batch.length(item); };
  over_items(batch.items(), 4, steps, [&](int64_t item, int64_t begin, int64_t end) {
    float* memory = Arena::mine().floats(static_cast<std::size_t>(workspace_floats(args, end - begin)));
    Source added{};
    if (residual) {
      added = {residual->const_data_ptr<float>() + item * residual->stride(0), residual->stride(2), residual->stride(1),
               batch.length(item), args.cout};
    }
    table.conv2d(args, batch.source(item), residual ? &added : nullptr, out.sink(item), begin, end, memory);
  });
  for (int64_t i = 0; i < batch.items(); ++i) out.clear_tail(i, steps(i));
  return out.tensor();
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CPU, m) { m.impl("conv2d", TORCH_BOX(&fastvoc::conv2d)); }
