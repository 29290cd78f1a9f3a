// Torch's view of mrf.
#include "glue.h"

namespace fastvoc {
namespace {

Tensor mrf(Tensor x, Tensor weight, Tensor bias, std::optional<Tensor> lengths, Ints kernels, Ints dilations, Ints layers,
           int64_t depth, bool reflect, Ints kinds, std::vector<double> slopes, std::optional<Tensor> curves) {
  const int channels = as_int(x.size(1));
  const int width = padded(channels);
  const std::size_t count = kernels.size();
  int64_t floats = 0, total = 0, longest = 0;
  for (int64_t k : kernels) floats += k * width * channels;
  for (int64_t n : layers) {
    total += n * depth;
    longest = std::max(longest, n * depth);
  }
  STD_TORCH_CHECK(count == dilations.size() && static_cast<int64_t>(count) == total && count > 0 &&
                      layers.size() <= kMaxBlocks && longest <= kMaxConvs,
                  "mrf: kernels, dilations and layers do not fit together");
  const float* w = packed(weight, floats, "weight");
  const float* b = packed(bias, static_cast<int64_t>(count) * width, "bias");

  const auto acts = activations(kinds, slopes, curves, count, [&](std::size_t) { return channels; });
  std::vector<MrfConv> convs(count);
  for (std::size_t i = 0; i < count; ++i) {
    const int kernel = as_int(kernels[i]), dilation = as_int(dilations[i]);
    convs[i] = {w, b, kernel, dilation, (kernel - 1) * dilation / 2, 0, acts[i]};
    w += int64_t{1} * kernel * width * channels;
    b += width;
  }
  std::vector<int> begins{0};
  int halo = 0;
  for (int64_t n : layers) {
    const int begin = begins.back(), end = begin + as_int(n * depth);
    for (int i = end - 2; i >= begin; --i) {
      const auto j = static_cast<std::size_t>(i);
      convs[j].reach = convs[j + 1].reach + convs[j + 1].pad;
    }
    halo = std::max(halo, convs[static_cast<std::size_t>(begin)].reach + convs[static_cast<std::size_t>(begin)].pad);
    begins.push_back(end);
  }
  const MrfArgs args{convs.data(),  begins.data(), as_int(static_cast<int64_t>(layers.size())),
                     as_int(depth), channels,      reflect};

  const Batch batch(x, channels, lengths);
  const Output out(batch.items(), channels, batch.steps());
  const Engine& table = engine();
  const auto steps = [&](int64_t item) { return batch.length(item); };
  over_items(batch.items(), std::max(halo, 24), steps, [&](int64_t item, int64_t begin, int64_t end) {
    const int64_t needed = workspace_floats(args, end - begin);
    float* memory = Arena::mine().floats(static_cast<std::size_t>(needed));
    table.mrf(args, batch.source(item), out.sink(item), begin, end, memory);
  });
  for (int64_t i = 0; i < batch.items(); ++i) out.clear_tail(i, steps(i));
  return out.tensor();
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CPU, m) { m.impl("mrf", TORCH_BOX(&fastvoc::mrf)); }
