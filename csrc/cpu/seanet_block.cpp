// Torch's view of seanet_block.
#include "glue.h"

namespace fastvoc {
namespace {

Tensor seanet_block(Tensor x, Tensor weight1, Tensor bias1, Tensor weight2, Tensor bias2, std::optional<Tensor> lengths,
                    Ints shape, Ints kinds, std::vector<double> slopes, std::optional<Tensor> curves) {
  STD_TORCH_CHECK(shape.size() == 10, "seanet_block: expected 10 shape values");
  SeanetBlockArgs args{};
  Conv1dArgs& conv1 = args.conv1;
  conv1.cin = as_int(shape[0]);
  conv1.cout = as_int(shape[1]);
  args.cout = as_int(shape[2]);
  conv1.kernel = as_int(shape[3]);
  conv1.stride = 1;
  conv1.dilation = as_int(shape[4]);
  conv1.left = as_int(shape[5]);
  conv1.right = as_int(shape[6]);
  STD_TORCH_CHECK(shape[7] >= 0 && shape[7] <= 2, "seanet_block: unknown padding ", shape[7]);
  conv1.pad = static_cast<Pad>(shape[7]);
  args.shift = as_int(shape[8]);
  args.identity = shape[9] != 0;
  const auto acts =
      activations(kinds, slopes, curves, 2, [&](std::size_t i) { return i == 0 ? conv1.cin : conv1.cout; });
  conv1.pre = acts[0];
  conv1.post = acts[1];
  const int hidden = padded(conv1.cout), width = padded(args.cout);
  conv1.weight = packed(weight1, int64_t{1} * hidden * conv1.kernel * conv1.cin, "weight1");
  conv1.bias = packed(bias1, hidden, "bias1");
  args.weight = packed(weight2, int64_t{1} * width * (hidden + (args.identity ? 0 : conv1.cin)), "weight2");
  args.bias = packed(bias2, width, "bias2");
  STD_TORCH_CHECK(!args.identity || args.cout == conv1.cin, "seanet_block: the input itself has other channels");

  const Batch batch(x, conv1.cin, lengths);
  const int64_t lost = args.span() - 1 - conv1.left - conv1.right;
  STD_TORCH_CHECK(args.shift >= 0 && args.shift <= lost, "seanet_block: shift beyond the input");
  const auto steps = [&](int64_t item) { return batch.length(item) - lost; };
  STD_TORCH_CHECK(steps(0) > 0 && batch.steps() > lost, "seanet_block: fewer steps than the kernel spans");
  const Output out(batch.items(), args.cout, batch.steps() - lost);
  const int64_t need = conv1.pad == Pad::kReflect ? std::max(conv1.left, conv1.right) + 1 : 1;
  const Engine& table = engine();
  over_items(batch.items(), 24, steps, [&](int64_t item, int64_t begin, int64_t end) {
    float* memory = Arena::mine().floats(static_cast<std::size_t>(workspace_floats(args, end - begin)));
    Source source = batch.source(item);
    std::vector<float> longer;
    if (source.steps < need) {
      longer.resize(static_cast<std::size_t>(need * conv1.cin));
      for (int64_t t = 0; t < source.steps; ++t) {
        for (int c = 0; c < conv1.cin; ++c) {
          longer[static_cast<std::size_t>(t * conv1.cin + c)] = source.data[t * source.step + c * source.channel];
        }
      }
      source = {longer.data(), conv1.cin, 1, need, conv1.cin};
    }
    table.seanet_block(args, source, out.sink(item), begin, end, memory);
  });
  for (int64_t i = 0; i < batch.items(); ++i) out.clear_tail(i, steps(i));
  return out.tensor();
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CPU, m) { m.impl("seanet_block", TORCH_BOX(&fastvoc::seanet_block)); }
