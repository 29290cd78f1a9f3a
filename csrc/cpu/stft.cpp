// Torch's view of stft.
#include "spectral_glue.h"

namespace fastvoc {
namespace {

Tensor stft(const StftCall& call) {
  const int size = call.size;
  StftArgs args{};
  args.hop = call.hop;
  args.left = call.left;
  args.reflect = static_cast<Pad>(call.pad) == Pad::kReflect;
  args.polar = call.polar;
  args.first_is_real = call.first_is_real;
  STD_TORCH_CHECK(args.hop >= 1 && args.left >= 0 && call.right >= 0, "stft: expected a positive hop and no negative padding");
  args.window = read_plan(call.radices, size, call.tables, size + kPanelWidth, args.fft);

  const Batch batch(call.x, 1, call.lengths);
  const int64_t beside = int64_t{call.left} + call.right, most = std::max(call.left, call.right);
  const auto made = [&](int64_t samples) { return (samples + beside - size) / args.hop + 1; };
  for (int64_t i = 0; i < batch.items(); ++i) {
    const int64_t samples = batch.length(i);
    STD_TORCH_CHECK((samples > most || !args.reflect) && samples + beside >= size, "stft: too few samples");
  }
  const Output out(batch.items(), size + 2, made(batch.steps()));
  const FloatKernels& table = engine().only_floats;
  const auto steps = [&](int64_t item) { return made(batch.length(item)); };
  over_items(batch.items(), 4 * kPanelWidth, steps, [&](int64_t item, int64_t begin, int64_t end) {
    float* memory = Arena::mine().floats(static_cast<std::size_t>(workspace_floats(args)));
    table.stft(args, batch.source(item), out.sink(item), begin, end, memory);
  });
  return out.tensor(steps);
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CPU, m) { m.impl("stft", fastvoc::boxed<fastvoc::StftCall, fastvoc::stft>); }
