// Torch's view of adain.
#include <cmath>

#include "glue.h"

namespace fastvoc {
namespace {

// The style of every item: gamma, then beta, of each channel.
struct Styles {
  const float* data;
  std::ptrdiff_t item;
  std::ptrdiff_t value;

  double at(int64_t i, int64_t c) const { return static_cast<double>(data[i * item + c * value]); }
};

// Blocks of steps of all items, each of whose channels have their moments taken at once.
class Blocks {
 public:
  Blocks(int64_t items, int64_t step) : step_(step), first_{0} { first_.reserve(static_cast<std::size_t>(items + 1)); }

  void add(int64_t steps) { first_.push_back(first_.back() + ceil_div(steps, step_)); }
  int64_t count() const { return first_.back(); }
  int64_t first(int64_t item) const { return first_[static_cast<std::size_t>(item)]; }
  int64_t begin(int64_t item, int64_t block) const { return (block - first(item)) * step_; }
  int64_t step() const { return step_; }

 private:
  int64_t step_;
  std::vector<int64_t> first_;
};

// What each channel of an item becomes, from the moments of its blocks (Chan et al. 1979), added up in order.
void fit(const AdaInArgs& args, const Blocks& blocks, int64_t item, int64_t steps, const float* moments, const float* weight,
         const float* bias, const Styles& styles, double eps, float* out) {
  const int width = padded(args.channels);
  std::vector<double> mean(static_cast<std::size_t>(width)), squares(static_cast<std::size_t>(width));
  double count = 0.0;
  for (int64_t block = blocks.first(item); block < blocks.first(item + 1); ++block) {
    const float* part = moments + block * 3 * width;
    const double added = static_cast<double>(std::min(blocks.step(), steps - blocks.begin(item, block)));
    const double share = added / (count + added), cross = count * share;
    for (int c = 0; c < args.channels; ++c) {
      const auto i = static_cast<std::size_t>(c);
      const double distance = static_cast<double>(part[c]) + static_cast<double>(part[width + c]) - mean[i];
      mean[i] += distance * share;
      squares[i] += static_cast<double>(part[2 * width + c]) + distance * distance * cross;
    }
    count += added;
  }
  for (int c = 0; c < args.channels; ++c) {
    const auto i = static_cast<std::size_t>(c);
    const double gain = 1.0 + styles.at(item, c);
    out[c] = static_cast<float>(mean[i]);
    out[width + c] = static_cast<float>(mean[i] - static_cast<double>(out[c]));
    out[2 * width + c] = static_cast<float>(gain * static_cast<double>(weight[c]) / std::sqrt(squares[i] / count + eps));
    out[3 * width + c] = static_cast<float>(gain * static_cast<double>(bias[c]) + styles.at(item, args.channels + c));
  }
}

template <class Element>
Tensor run(const AdaInArgs& args, const float* weight, const float* bias, const Styles& styles, const AdainCall& call) {
  const BatchOf<Element> batch(call.x, args.channels, call.lengths);
  const auto& table = engine().kernels<Element>().norms;
  const auto floats = static_cast<std::size_t>(workspace_floats(args));
  const int width = padded(args.channels);

  Blocks blocks(batch.items(), moment_steps(args));
  for (int64_t i = 0; i < batch.items(); ++i) blocks.add(batch.length(i));
  std::vector<float> moments(static_cast<std::size_t>(blocks.count() * 3 * width));
  fork_join(blocks.count(), torch::stable::get_num_threads(), [&](int64_t block) {
    int64_t item = 0;
    while (blocks.first(item + 1) <= block) ++item;
    const int64_t from = blocks.begin(item, block), to = std::min(from + blocks.step(), batch.length(item));
    float* part = moments.data() + block * 3 * width;
    table.adain_moments(args, batch.source(item), from, to, {part, part + width, part + 2 * width},
                        Arena::mine().floats(floats));
  });
  std::vector<float> fitted(static_cast<std::size_t>(batch.items() * 4 * width));
  for (int64_t i = 0; i < batch.items(); ++i) {
    fit(args, blocks, i, batch.length(i), moments.data(), weight, bias, styles, call.eps, fitted.data() + i * 4 * width);
  }

  const OutputOf<Element> out(batch.items(), args.channels, batch.steps());
  const auto steps = [&](int64_t item) { return batch.length(item); };
  over_items(batch.items(), 24, steps, [&](int64_t item, int64_t begin, int64_t end) {
    float* memory = Arena::mine().floats(floats);
    const float* own = fitted.data() + item * 4 * width;
    const AdaInItem fit{own, own + width, own + 2 * width, own + 3 * width};
    table.adain(args, fit, batch.source(item), out.sink(item), begin, end, memory);
  });
  return out.tensor(steps);
}

Tensor adain(const AdainCall& call) {
  const Tensor &x = call.x, &style = call.style;
  AdaInArgs args{};
  args.channels = as_int(x.size(1));
  const int width = padded(args.channels);
  args.act = activations(call, 1, [&](std::size_t) { return args.channels; })[0];
  check_floats(style, "style");
  STD_TORCH_CHECK(style.dim() == 3 && style.size(0) == x.size(0) && style.size(1) == 2 * x.size(1) && style.size(2) == 1,
                  "style: expected [B, 2 * C, 1]");
  const Styles styles{style.const_data_ptr<float>(), style.stride(0), style.stride(1)};
  const float* scale = packed(call.weight, width, "weight");
  const float* shift = packed(call.bias, width, "bias");
  return by_type(x, [&](auto element) { return run<decltype(element)>(args, scale, shift, styles, call); });
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CPU, m) { m.impl("adain", fastvoc::boxed<fastvoc::AdainCall, fastvoc::adain>); }
