// Torch's view of conv1d.
#include "glue.h"

namespace fastvoc {
namespace {

Tensor conv1d(Tensor x, Tensor weight, Tensor bias, std::optional<Tensor> residual, std::optional<Tensor> lengths,
              Ints shape, Ints kinds, std::vector<double> slopes, std::optional<Tensor> curves) {
  STD_TORCH_CHECK(shape.size() == 8, "conv1d: expected 8 shape values");
  Conv1dArgs args{};
  args.cout = as_int(shape[0]);
  args.cin = as_int(shape[1]);
  args.kernel = as_int(shape[2]);
  args.stride = as_int(shape[3]);
  args.dilation = as_int(shape[4]);
  args.left = as_int(shape[5]);
  args.right = as_int(shape[6]);
  args.pad = static_cast<Pad>(shape[7]);
  const auto acts =
      activations(kinds, slopes, curves, 2, [&](std::size_t i) { return i == 0 ? args.cin : args.cout; });
  args.pre = acts[0];
  args.post = acts[1];
  const int width = padded(args.cout);
  args.weight = packed(weight, int64_t{1} * width * args.kernel * args.cin, "weight");
  args.bias = packed(bias, width, "bias");
  const int64_t span = int64_t{1} * args.dilation * (args.kernel - 1) + 1;
  STD_TORCH_CHECK(shape[7] >= 0 && shape[7] <= 2, "conv1d: unknown padding ", shape[7]);

  const Batch batch(x, args.cin, lengths);
  const auto made = [&](int64_t steps) { return (steps + args.left + args.right - span) / args.stride + 1; };
  const Output out(batch.items(), args.cout, made(batch.steps()));
  if (residual) check_floats(*residual, "residual");
  const Engine& table = engine();
  const auto steps = [&](int64_t item) { return made(batch.length(item)); };
  over_items(batch.items(), 24, steps, [&](int64_t item, int64_t begin, int64_t end) {
    const int64_t count = workspace_floats(args, end - begin);
    float* memory = Arena::mine().floats(static_cast<std::size_t>(count));
    Source added{};
    if (residual) {
      added = {residual->const_data_ptr<float>() + item * residual->stride(0), residual->stride(2), residual->stride(1),
               made(batch.length(item)), args.cout};
    }
    table.conv1d(args, batch.source(item), residual ? &added : nullptr, out.sink(item), begin, end, memory);
  });
  for (int64_t i = 0; i < batch.items(); ++i) out.clear_tail(i, steps(i));
  return out.tensor();
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CPU, m) { m.impl("conv1d", TORCH_BOX(&fastvoc::conv1d)); }
