// Torch's view of depthwise.
#include "glue.h"

namespace fastvoc {
namespace {

template <class Element>
Tensor run(const Tensor& x, const DepthwiseArgs& args, const std::optional<Tensor>& lengths) {
  const BatchOf<Element> batch(x, args.channels, lengths);
  STD_TORCH_CHECK(args.made(batch.steps()) > 0, "depthwise: x: fewer steps than the kernel spans");
  const OutputOf<Element> out(batch.items(), args.channels, args.made(batch.steps()));
  const auto kernel = engine().kernels<Element>().depthwise;
  const auto steps = [&](int64_t item) { return args.made(batch.length(item)); };
  over_items(batch.items(), 64, steps, [&](int64_t item, int64_t begin, int64_t end) {
    float* memory = Arena::mine().floats(static_cast<std::size_t>(workspace_floats(args, end - begin)));
    kernel(args, batch.source(item), out.sink(item), begin, end, memory);
  });
  for (int64_t i = 0; i < batch.items(); ++i) out.clear_tail(i, steps(i));
  return out.tensor();
}

Tensor depthwise(Tensor x, Tensor weight, Tensor bias, std::optional<Tensor> lengths, Ints shape, Ints kinds,
                 std::vector<double> slopes, std::optional<Tensor> curves) {
  STD_TORCH_CHECK(shape.size() == 5, "depthwise: expected 5 shape values");
  DepthwiseArgs args{};
  args.channels = as_int(shape[0]);
  args.kernel = as_int(shape[1]);
  args.dilation = as_int(shape[2]);
  args.left = as_int(shape[3]);
  args.right = as_int(shape[4]);
  const int64_t width = padded(args.channels);
  args.weight = packed(weight, args.kernel * width, "weight");
  args.bias = packed(bias, width, "bias");
  args.pre = activations(kinds, slopes, curves, 1, [&](std::size_t) { return args.channels; })[0];
  return x.scalar_type() == scalar_type<Bf16> ? run<Bf16>(x, args, lengths) : run<float>(x, args, lengths);
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CPU, m) { m.impl("depthwise", TORCH_BOX(&fastvoc::depthwise)); }
