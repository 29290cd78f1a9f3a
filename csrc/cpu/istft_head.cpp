// Torch's view of istft_head.
#include "spectral_glue.h"

namespace fastvoc {
namespace {

Tensor run(const IstftHeadArgs& args, const IstftHeadCall& call) {
  const int size = args.fft.size, hop = args.hop;
  const AnyBatch batch(call.x, size + 2, call.lengths);
  const auto made = [&](int64_t frames) { return (frames - 1) * hop + size - call.left - call.right; };
  for (int64_t i = 0; i < batch.items(); ++i) STD_TORCH_CHECK(made(batch.length(i)) > 0, "istft_head: too few frames");
  const Output out(batch.items(), 1, made(batch.steps()));
  const auto steps = [&](int64_t item) { return made(batch.length(item)); };
  const auto& kernel = engine().only_floats.istft_head;
  // A thread wants a whole tile of transforms, and of short ones several.
  const int64_t shortest = std::min<int64_t>(4 * kPanelWidth * hop, std::max<int64_t>(12 * hop, 2048));
  over_items(batch.items(), shortest, steps, [&](int64_t item, int64_t begin, int64_t end) {
    float* memory = Arena::mine().floats(static_cast<std::size_t>(workspace_floats(args)));
    kernel(args, batch.source(item), out.sink(item), begin, end, memory);
  });
  return out.tensor(steps);
}

Tensor istft_head(const IstftHeadCall& call) {
  const int size = call.size, hop = call.hop;
  STD_TORCH_CHECK(hop >= 1 && hop <= size && call.left >= 0 && call.right >= 0, "istft_head: expected a hop of 1..n_fft");
  STD_TORCH_CHECK(call.wide, "istft_head: expected samples in float32");
  IstftHeadArgs args{};
  args.hop = hop;
  args.trim = call.left;
  args.sine = call.sine;
  args.clip = static_cast<float>(call.clip);
  args.clamp = static_cast<float>(call.clamp);
  args.window = read_plan(call.radices, size, call.tables, 2 * size + hop + kPanelWidth, args.fft);
  args.squares = args.window + size;
  args.inverse = args.window + 2 * size;
  return run(args, call);
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CPU, m) {
  m.impl("istft_head", fastvoc::boxed<fastvoc::IstftHeadCall, fastvoc::istft_head>);
}
