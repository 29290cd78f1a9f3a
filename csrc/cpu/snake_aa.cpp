// Torch's view of snake_aa.
#include "glue.h"

namespace fastvoc {
namespace {

template <class Element, class Kernel>
Tensor run(const Tensor& x, const SnakeAaArgs& args, const std::optional<Tensor>& lengths, const Kernel& kernel) {
  const BatchOf<Element> batch(x, args.channels, lengths);
  const OutputOf<Element> out(batch.items(), args.channels, batch.steps());
  const auto steps = [&](int64_t item) { return batch.length(item); };
  over_items(batch.items(), 24, steps, [&](int64_t item, int64_t begin, int64_t end) {
    float* memory = Arena::mine().floats(static_cast<std::size_t>(workspace_floats(args, end - begin)));
    kernel(args, batch.source(item), out.sink(item), begin, end, memory);
  });
  for (int64_t i = 0; i < batch.items(); ++i) out.clear_tail(i, steps(i));
  return out.tensor();
}

Tensor snake_aa(Tensor x, Tensor alpha, Tensor inverse, Tensor taps, std::optional<Tensor> lengths) {
  const int channels = as_int(alpha.numel());
  STD_TORCH_CHECK(channels > 0, "alpha: expected a value per channel");
  const SnakeAaArgs args{packed(alpha, channels, "alpha"), packed(inverse, channels, "inverse"),
                         packed(taps, kAaTaps, "taps"), channels};
  if (x.scalar_type() == scalar_type<Bf16>) return run<Bf16>(x, args, lengths, engine().kernels<Bf16>().snake_aa);
  return run<float>(x, args, lengths, engine().kernels<float>().snake_aa);
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CPU, m) { m.impl("snake_aa", TORCH_BOX(&fastvoc::snake_aa)); }
