// Torch's view of snake_aa.
#include "glue.h"

namespace fastvoc {
namespace {

template <class Element>
Tensor run(const SnakeAaArgs& args, const SnakeAaCall& call) {
  const BatchOf<Element> batch(call.x, args.channels, call.lengths);
  const OutputOf<Element> out(batch.items(), args.channels, batch.steps());
  const auto steps = [&](int64_t item) { return batch.length(item); };
  const auto& kernel = engine().kernels<Element>().snake_aa;
  over_items(batch.items(), 24, steps, [&](int64_t item, int64_t begin, int64_t end) {
    float* memory = Arena::mine().floats(static_cast<std::size_t>(workspace_floats(args, end - begin)));
    kernel(args, batch.source(item), out.sink(item), begin, end, memory);
  });
  return out.tensor(steps);
}

Tensor snake_aa(const SnakeAaCall& call) {
  const int channels = as_int(call.alpha.numel());
  STD_TORCH_CHECK(channels > 0, "alpha: expected a value per channel");
  const SnakeAaArgs args{packed(call.alpha, channels, "alpha"), packed(call.inverse, channels, "inverse"),
                         packed(call.taps, kAaTaps, "taps"), channels};
  return by_type(call.x, [&](auto element) { return run<decltype(element)>(args, call); });
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CPU, m) { m.impl("snake_aa", fastvoc::boxed<fastvoc::SnakeAaCall, fastvoc::snake_aa>); }
