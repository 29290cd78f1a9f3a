// The Toom-Cook schemes and what they need.
#pragma once

#include "args.h"

namespace fastvoc {

// The numbers of fastvoc/runtime/packing.py; F(m, r) makes m outputs of r taps. A depthwise convolution has no products to save.
enum class Scheme : int { kDirect = 0, kF63 = 1, kF45 = 2, kF44 = 3, kF33 = 4, kDepthwise = 5 };

constexpr int scheme_tile(Scheme s) {
  return s == Scheme::kDirect ? 1 : s == Scheme::kF63 ? 6 : s == Scheme::kF33 ? 3 : 4;
}
constexpr int scheme_group(Scheme s) {
  return s == Scheme::kF63 || s == Scheme::kF33 ? 3 : s == Scheme::kF45 ? 5 : 4;
}
// Products of a tile, that at infinity included.
constexpr int scheme_points(Scheme s) { return scheme_tile(s) + scheme_group(s) - 1; }

// Tiles are anchored to the item: tile (b, r) holds the steps dilation * (tile * b + j) + r for j in [0, tile).
struct ToomCook {
  Scheme scheme;
  int kernel;
  int dilation;

  int tile() const { return scheme_tile(scheme); }
  int points() const { return scheme_points(scheme); }
  int groups() const { return static_cast<int>(ceil_div(kernel, scheme_group(scheme))); }
  int groups_at_infinity() const { return kernel / scheme_group(scheme); }
  // Steps from a tile's beginning to the next tile's of the same phase.
  int block() const { return tile() * dilation; }
  // Steps beyond the kernel's own span that the tiles of the last group read.
  int extra() const {
    const int last = (groups() - 1) * scheme_group(scheme) + points() - (groups_at_infinity() < groups() ? 1 : 0);
    return (last - (tile() - 1) - kernel) * dilation;
  }
  // Weights of every point, in taps.
  int taps() const { return (points() - 1) * groups() + groups_at_infinity(); }
};

// Rows of transformed input that are multiplied before their results are transformed back: at most, and of so many in all. Where
// there are few more than fit, two or three of them would wait for weights that serve all.
constexpr std::int64_t kToomCookChunk = 60;
// Rows up to so many channels are transformed just before they are multiplied, and stay in L1.
constexpr int kToomCookNear = 64;

inline std::int64_t toom_cook_chunk(std::int64_t rows) { return ceil_div(rows, ceil_div(rows, kToomCookChunk)); }

// Floats of scratch memory for the sums of one thread.
inline std::int64_t toom_cook_sums(const ToomCook& conv) { return conv.points() * kToomCookChunk * 2 * kPanelWidth; }

// Floats of scratch memory for the transformed input of up to `steps` output steps, whatever its type.
inline std::int64_t toom_cook_points(const ToomCook& conv, int width, std::int64_t steps) {
  return conv.points() * (ceil_div(steps, conv.block()) + conv.groups() - 1) * conv.dilation * width;
}

// Floats of scratch memory for up to `steps` output steps by so many threads.
inline std::int64_t toom_cook_floats(const ToomCook& conv, int width, std::int64_t steps, int threads) {
  return toom_cook_points(conv, width, steps) + threads * toom_cook_sums(conv);
}

}  // namespace fastvoc
