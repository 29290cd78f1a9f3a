// The register tile that every convolution is made of: R output steps by NV panels of 16 output channels, summed over taps
// and input channels in one fixed order, so that a value never depends on where its tile lies.
#pragma once

#include "activation.h"

namespace fastvoc::FASTVOC_ISA {

// Input steps are rows of channels: step r, tap k reads x + r * row + k * tap. Weights are panels [tap][cin][16].
struct TileInput {
  const float* x;
  std::ptrdiff_t row;
  std::ptrdiff_t tap;
  const float* w;
  std::ptrdiff_t panel;
  const float* bias;
  int taps;
  int cin;
};

// y = (acc + bias + residual + sum) * scale goes to `raw`, its activation to `act`; null pointers leave a part out.
struct TileOutput {
  float* raw;
  float* act;
  const float* residual;
  const float* sum;
  std::ptrdiff_t raw_row;
  std::ptrdiff_t act_row;
  std::ptrdiff_t residual_row;
  std::ptrdiff_t sum_row;
  const Act* activation;  // of `act`
  std::ptrdiff_t channel;  // the first of the panel
  float scale;
};

constexpr int kPanel = 16;
constexpr int kVecs = kPanel / FASTVOC_WIDTH;

template <int R, int NV>
inline __attribute__((always_inline)) void accumulate(const TileInput& in, Vec (&acc)[R][NV * kVecs]) {
  constexpr int groups = (R + 2) / 3;
  for (int v = 0; v < NV * kVecs; ++v) {
    const Vec b = load(in.bias + v * FASTVOC_WIDTH);
#pragma GCC unroll 32
    for (int r = 0; r < R; ++r) acc[r][v] = b;
  }
  const std::ptrdiff_t row = in.row, panel = in.panel;
  const float* w = in.w;
  for (int k = 0; k < in.taps; ++k) {
    const float* x[groups];
    for (int g = 0; g < groups; ++g) x[g] = in.x + k * in.tap + 3 * g * row;
    const int cin = in.cin;
#pragma GCC unroll 2
    for (int c = 0; c < cin; ++c) {
      Vec wv[NV * kVecs];
      for (int v = 0; v < NV * kVecs; ++v) {
        wv[v] = load(w + (v / kVecs) * panel + (v % kVecs) * FASTVOC_WIDTH);
      }
#pragma GCC unroll 32
      for (int r = 0; r < R; ++r) {
        const float xv = x[r / 3][(r % 3) * row + c];
        for (int v = 0; v < NV * kVecs; ++v) acc[r][v] += wv[v] * xv;
      }
      w += kPanel;
    }
  }
}

template <int R, int NV>
inline __attribute__((always_inline)) void finish(const TileOutput& out, Vec (&acc)[R][NV * kVecs]) {
  const float slope = out.act ? out.activation->leak() : 1.0f;
#pragma GCC unroll 32
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < NV * kVecs; ++v) {
      const std::ptrdiff_t c = v * FASTVOC_WIDTH;
      Vec y = acc[r][v];
      if (out.residual) y += load(out.residual + r * out.residual_row + c);
      if (out.sum) y += load(out.sum + r * out.sum_row + c);
      if (out.scale != 1.0f) y *= out.scale;
      if (out.raw) store(out.raw + r * out.raw_row + c, y);
      if (out.act) store(out.act + r * out.act_row + c, leaky(y, slope));
    }
  }
}

template <int R, int NV>
__attribute__((noinline)) void tile(const TileInput& in, const TileOutput& out) {
  Vec acc[R][NV * kVecs];
  accumulate<R, NV>(in, acc);
  finish<R, NV>(out, acc);
  if (out.act && out.activation->kind != ActKind::kLeaky) {
    activate_rows(*out.activation, out.act, out.act_row, R, out.channel, NV * kPanel);
  }
}

using TileFn = void (*)(const TileInput&, const TileOutput&);

template <int NV, int... R>
constexpr std::array<TileFn, sizeof...(R) + 1> tile_table(std::integer_sequence<int, R...>) {
  return {nullptr, &tile<R + 1, NV>...};
}

// Runs `rows` steps of the panels from `panel` on (one or two) in tiles as high as the registers allow.
template <int NV>
void tile_rows(TileInput in, TileOutput out, std::int64_t rows) {
  constexpr int high = NV == 2 ? FASTVOC_ROWS2 : FASTVOC_ROWS1;
  static constexpr auto table = tile_table<NV>(std::make_integer_sequence<int, high>{});
  // Tiles of even height: a low one at the end would wait for its weights.
  for (std::int64_t tiles = ceil_div(rows, high); tiles > 0; --tiles) {
    const int n = static_cast<int>(ceil_div(rows, tiles));
    table[static_cast<std::size_t>(n)](in, out);
    in.x += n * in.row;
    if (out.raw) out.raw += n * out.raw_row;
    if (out.act) out.act += n * out.act_row;
    if (out.residual) out.residual += n * out.residual_row;
    if (out.sum) out.sum += n * out.sum_row;
    rows -= n;
  }
}

inline TileOutput shifted(TileOutput out, std::ptrdiff_t columns) {
  if (out.raw) out.raw += columns;
  if (out.act) out.act += columns;
  if (out.residual) out.residual += columns;
  if (out.sum) out.sum += columns;
  out.channel += columns;
  return out;
}

inline TileInput panels_from(TileInput in, int panel) {
  in.w += panel * in.panel;
  in.bias += panel * kPanel;
  return in;
}

// All output channels of `rows` steps: panels outermost, so that a panel's weights stay near while the steps go by.
inline void conv_rows(TileInput in, const TileOutput& out, std::int64_t rows, int panels) {
  int p = 0;
  for (; FASTVOC_ROWS2 > 0 && p + 2 <= panels; p += 2) {
    tile_rows<FASTVOC_ROWS2 ? 2 : 1>(panels_from(in, p), shifted(out, p * kPanel), rows);
  }
  for (; p < panels; ++p) tile_rows<1>(panels_from(in, p), shifted(out, p * kPanel), rows);
}

}  // namespace fastvoc::FASTVOC_ISA
