// Torch's view of stft.
#include "spectral_glue.h"

namespace fastvoc {
namespace {

Tensor stft(Tensor x, Tensor tables, std::optional<Tensor> lengths, Ints radices, Ints shape) {
  STD_TORCH_CHECK(shape.size() == 6, "stft: expected 6 shape values");
  const int size = as_int(shape[0]);
  StftArgs args{};
  args.hop = as_int(shape[1]);
  args.left = as_int(shape[2]);
  const int64_t right = shape[3];
  args.polar = shape[4] != 0;
  args.first_is_real = shape[5] != 0;
  STD_TORCH_CHECK(args.hop >= 1 && args.left >= 0 && right >= 0, "stft: expected a positive hop and no negative padding");
  args.window = read_plan(radices, size, tables, size + kPanelWidth, args.fft);

  const Batch batch(x, 1, lengths);
  const auto made = [&](int64_t samples) { return (samples + args.left + right - size) / args.hop + 1; };
  const int64_t most = std::max<int64_t>(args.left, right);
  for (int64_t i = 0; i < batch.items(); ++i) {
    const int64_t samples = batch.length(i);
    STD_TORCH_CHECK(samples > most && samples + args.left + right >= size, "stft: too few samples");
  }
  const Output out(batch.items(), size + 2, made(batch.steps()));
  const FloatKernels& table = engine().only_floats;
  const auto steps = [&](int64_t item) { return made(batch.length(item)); };
  over_items(batch.items(), 4 * kPanelWidth, steps, [&](int64_t item, int64_t begin, int64_t end) {
    float* memory = Arena::mine().floats(static_cast<std::size_t>(workspace_floats(args)));
    table.stft(args, batch.source(item), out.sink(item), begin, end, memory);
  });
  for (int64_t i = 0; i < batch.items(); ++i) out.clear_tail(i, steps(i));
  return out.tensor();
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CPU, m) { m.impl("stft", TORCH_BOX(&fastvoc::stft)); }
