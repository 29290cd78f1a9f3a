// Torch's view of seanet_block.
#include "seanet_glue.h"

namespace fastvoc {
namespace {

void run_block(const SeanetBlockArgs<float>& args, const Source& source, const Sink& sink, int64_t begin, int64_t end,
               float* memory) {
  engine().kernels<float>().seanet_block(args, source, sink, begin, end, memory);
}

void run_block(const SeanetBlockArgs<Bf16>& args, const SourceOf<Bf16>& source, const SinkOf<Bf16>& sink, int64_t begin,
               int64_t end, float* memory) {
  engine().kernels<Bf16>().seanet_block(args, source, sink, begin, end, memory);
}

template <class Element>
Tensor run(const Tensor& x, const Tensor& weight1, const Tensor& weight2, const std::optional<Tensor>& lengths,
           SeanetBlockArgs<Element> args) {
  const Conv1dArgs& conv1 = args.conv1;
  args.weight1 = packed<Element>(weight1, int64_t{1} * args.hidden() * conv1.kernel * args.channels(), "weight1");
  args.weight2 = packed<Element>(weight2, int64_t{1} * padded(args.cout) * args.inputs(), "weight2");
  const BatchOf<Element> batch(x, conv1.cin, lengths);
  const int64_t lost = args.span() - 1 - conv1.left - conv1.right;
  STD_TORCH_CHECK(args.shift >= 0 && args.shift <= lost, "seanet_block: shift beyond the input");
  const auto steps = [&](int64_t item) { return batch.length(item) - lost; };
  for (int64_t i = 0; i < batch.items(); ++i) {
    STD_TORCH_CHECK(steps(i) > 0, "seanet_block: fewer steps than the kernel spans");
  }
  const OutputOf<Element> out(batch.items(), args.cout, batch.steps() - lost);
  over_items(batch.items(), 24, steps, [&](int64_t item, int64_t begin, int64_t end) {
    float* memory = Arena::mine().floats(static_cast<std::size_t>(workspace_floats(args, end - begin)));
    std::vector<Element> longer;
    const SourceOf<Element> source = lengthened(batch.source(item), reflected_steps(conv1), longer);
    run_block(args, source, out.sink(item), begin, end, memory);
  });
  for (int64_t i = 0; i < batch.items(); ++i) out.clear_tail(i, steps(i));
  return out.tensor();
}

Tensor seanet_block(Tensor x, Tensor weight1, Tensor bias1, Tensor weight2, Tensor bias2, std::optional<Tensor> shortcut,
                    std::optional<Tensor> bias_shortcut, std::optional<Tensor> norms, std::vector<double> eps,
                    std::optional<Tensor> lengths, Ints shape, Ints kinds, std::vector<double> slopes,
                    std::optional<Tensor> curves) {
  STD_TORCH_CHECK(shape.size() == 10, "seanet_block: expected 10 shape values");
  Conv1dArgs conv1{};
  conv1.cin = as_int(shape[0]);
  conv1.cout = as_int(shape[1]);
  const int cout = as_int(shape[2]);
  conv1.kernel = as_int(shape[3]);
  conv1.stride = 1;
  conv1.dilation = as_int(shape[4]);
  conv1.left = as_int(shape[5]);
  conv1.right = as_int(shape[6]);
  STD_TORCH_CHECK(shape[7] >= 0 && shape[7] <= 2, "seanet_block: unknown padding ", shape[7]);
  conv1.pad = static_cast<Pad>(shape[7]);
  const int shift = as_int(shape[8]);
  const bool identity = shape[9] != 0;
  STD_TORCH_CHECK(!identity || cout == conv1.cin, "seanet_block: the input itself has other channels");
  const auto acts =
      activations(kinds, slopes, curves, 2, [&](std::size_t i) { return i == 0 ? conv1.cin : conv1.cout; });
  conv1.pre = acts[0];
  conv1.post = acts[1];
  const float* first_bias = packed(bias1, padded(conv1.cout), "bias1");
  if (norms) {
    const SeanetTensors tensors{weight1, weight2, bias2, shortcut, bias_shortcut, norms, eps};
    if (x.scalar_type() == scalar_type<Bf16>) {
      return seanet_block_normed(
          x, tensors, lengths, SeanetBlockArgs<Bf16>{conv1, nullptr, nullptr, nullptr, cout, identity, shift, first_bias});
    }
    return seanet_block_normed(
        x, tensors, lengths, SeanetBlockArgs<float>{conv1, nullptr, nullptr, nullptr, cout, identity, shift, first_bias});
  }
  const float* bias = packed(bias2, padded(cout), "bias2");
  if (x.scalar_type() == scalar_type<Bf16>) {
    return run<Bf16>(x, weight1, weight2, lengths, {conv1, nullptr, nullptr, bias, cout, identity, shift, first_bias});
  }
  return run<float>(x, weight1, weight2, lengths, {conv1, nullptr, nullptr, bias, cout, identity, shift, first_bias});
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CPU, m) { m.impl("seanet_block", TORCH_BOX(&fastvoc::seanet_block)); }
