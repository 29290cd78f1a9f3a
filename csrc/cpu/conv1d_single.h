// The convolution to one output channel: an output is a dot product with a window of dense rows, which the lanes share out.
#pragma once

#include "conv1d_args.h"
#include "lanes.h"
#include "strip.h"

namespace fastvoc::FASTVOC_ISA {

// Fills `rows`, which lie side by side without padding, with the activated steps [from, to).
template <class Given, class Element>
void load_dense(const SourceOf<Given>& source, std::int64_t from, std::int64_t to, Element* rows, const Act& activation) {
  const std::ptrdiff_t width = source.channels;
  if (source.channel == 1 && source.step == width && activation.kind != ActKind::kSnake) {
    constexpr std::int64_t many = 512;
    alignas(64) float space[many];
    const Given* x = source.data + from * width;
    for (std::int64_t left = (to - from) * width; left > 0; left -= many, x += many, rows += many) {
      const std::int64_t count = std::min(many, left);
      widen_vectors(x, space, count);
      if constexpr (std::is_same_v<Element, Bf16> && std::is_same_v<Given, float>) round_row(space, count);
      activate_flat(activation, space, count);
      narrow_row(space, rows, count);
    }
    return;
  }
  constexpr int many = 32;
  SourceOf<Given> part = source;
  for (std::int64_t t = from; t < to; t += many) {
    const std::int64_t count = std::min<std::int64_t>(many, to - t);
    for (int c = 0; c < source.channels; c += kPanel) {
      alignas(64) Element panel[many * kPanel];
      Act act = activation;
      if (act.alpha) {
        act.alpha += c;
        act.inverse += c;
      }
      part.data = source.data + c * source.channel;
      part.channels = std::min(kPanel, source.channels - c);
      load_rows(part, t, t + count, nullptr, panel, act);
      for (std::int64_t i = 0; i < count; ++i) {
        std::copy_n(panel + i * kPanel, part.channels, rows + (t - from + i) * width + c);
      }
    }
  }
}

// The sums over all lanes of W vectors, each in the lane of its number.
template <int H>
inline __attribute__((always_inline)) void add_lanes(Vec* sums) {
  if constexpr (H > 0) {
#pragma GCC unroll 16
    for (int i = 0; i < H; ++i) {
      exchange<H>(sums[i], sums[i + H]);
      sums[i] += sums[i + H];
    }
    add_lanes<H / 2>(sums);
  }
}

// Dot products of as many windows as a vector has lanes, `step` elements from one another, with `vectors` vectors of weights;
// `last` has ones where the last of them counts.
template <class Element>
inline __attribute__((always_inline)) Vec window_sums(const Element* x, std::ptrdiff_t step, const Element* w,
                                                      std::int64_t vectors, const WordVec& last) {
  using D = Dot<Element>;
  constexpr int lanes = FASTVOC_WIDTH * Numbers<Element>::kGroup;
  Vec sums[FASTVOC_WIDTH] = {};
  const auto add = [&](std::int64_t v, const WordVec& mask) __attribute__((always_inline)) {
    const auto wv = D::load_weights(w + v * lanes);
#pragma GCC unroll 16
    for (int r = 0; r < FASTVOC_WIDTH; ++r) {
      const auto xv = D::load_weights(x + r * step + v * lanes);
      sums[r] = D::add(sums[r], wv, (typename D::Weights)((WordVec)xv & mask));
    }
  };
  const WordVec all = ~WordVec{};
  for (std::int64_t v = 0; v + 1 < vectors; ++v) add(v, all);
  add(vectors - 1, last);
  add_lanes<FASTVOC_WIDTH / 2>(sums);
  return sums[0];
}

// `count` outputs from dense rows, and what makes them whole vectors, for which windows beyond the rows are read.
template <class Element>
void single_rows(const Conv1dArgs& args, const Element* x, const Filter<Element>& filter, float* y, std::int64_t count) {
  constexpr int group = Numbers<Element>::kGroup, lanes = FASTVOC_WIDTH * group;
  const std::int64_t window = std::int64_t{1} * args.kernel * args.cin, vectors = ceil_div(window, lanes);
  const std::ptrdiff_t step = static_cast<std::ptrdiff_t>(args.stride) * args.cin;
  std::array<typename Numbers<Element>::Weight, lanes> ones{};
  std::memset(ones.data(), 0xff, static_cast<std::size_t>(window - (vectors - 1) * lanes) * sizeof ones[0]);
  WordVec last;
  std::memcpy(&last, ones.data(), sizeof last);
  const Vec bias = broadcast(filter.bias[0]);
  for (std::int64_t t = 0; t < count; t += FASTVOC_WIDTH) {
    store(y + t, window_sums(x + t * step, step, filter.weight, vectors, last) + bias);
  }
}

}  // namespace fastvoc::FASTVOC_ISA
