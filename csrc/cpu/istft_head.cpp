// Torch's view of istft_head.
#include "spectral_glue.h"

namespace fastvoc {
namespace {

template <class Element, class Kernel>
Tensor run(const Tensor& x, const std::optional<Tensor>& lengths, const IstftHeadArgs& args, int64_t cut,
           const Kernel& kernel) {
  const int size = args.fft.size, hop = args.hop;
  const BatchOf<Element> batch(x, size + 2, lengths);
  const auto made = [&](int64_t frames) { return (frames - 1) * hop + size - args.trim - cut; };
  for (int64_t i = 0; i < batch.items(); ++i) STD_TORCH_CHECK(made(batch.length(i)) > 0, "istft_head: too few frames");
  const Output out(batch.items(), 1, made(batch.steps()));
  const auto steps = [&](int64_t item) { return made(batch.length(item)); };
  // A thread wants a whole tile of transforms, and of short ones several.
  const int64_t shortest = std::min<int64_t>(4 * kPanelWidth * hop, std::max<int64_t>(12 * hop, 2048));
  over_items(batch.items(), shortest, steps, [&](int64_t item, int64_t begin, int64_t end) {
    float* memory = Arena::mine().floats(static_cast<std::size_t>(workspace_floats(args)));
    kernel(args, batch.source(item), out.sink(item), begin, end, memory);
  });
  for (int64_t i = 0; i < batch.items(); ++i) out.clear_tail(i, steps(i));
  return out.tensor();
}

Tensor istft_head(Tensor x, Tensor tables, std::optional<Tensor> lengths, Ints radices, Ints shape,
                  std::vector<double> bounds) {
  STD_TORCH_CHECK(shape.size() == 5 && bounds.size() == 2, "istft_head: expected 5 shape values and 2 bounds");
  const int size = as_int(shape[0]), hop = as_int(shape[1]);
  IstftHeadArgs args{};
  args.hop = hop;
  args.trim = as_int(shape[2]);
  const int64_t cut = shape[3];
  args.sine = shape[4] != 0;
  args.clip = static_cast<float>(bounds[0]);
  args.clamp = static_cast<float>(bounds[1]);
  STD_TORCH_CHECK(hop >= 1 && hop <= size && args.trim >= 0 && cut >= 0, "istft_head: expected a hop of 1..n_fft");
  const float* at = read_plan(radices, size, tables, 2 * size + hop + kPanelWidth, args.fft);
  args.window = at;
  args.squares = at + size;
  args.inverse = at + 2 * size;

  if (x.scalar_type() == scalar_type<Bf16>) return run<Bf16>(x, lengths, args, cut, engine().kernels<Bf16>().istft_head);
  return run<float>(x, lengths, args, cut, engine().kernels<float>().istft_head);
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CPU, m) { m.impl("istft_head", TORCH_BOX(&fastvoc::istft_head)); }
