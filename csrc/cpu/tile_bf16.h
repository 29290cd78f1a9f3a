// The register tile of the convolutions on bfloat16: rows and weights in pairs of channels, sums in float32, results rounded
// once. Everything else is as in tile.h.
#pragma once

#include "activation.h"
#include "bf16.h"
#include "tile.h"

namespace fastvoc::FASTVOC_ISA {

// Strides and channels count pairs. Weights are panels [tap][pair of channels][16][2].
struct PairInput {
  const Pair* x;
  std::ptrdiff_t row;
  std::ptrdiff_t tap;
  const Pair* w;
  std::ptrdiff_t panel;
  const float* bias;
  int taps;
  int cin;
};

// y = act(acc + bias + residual); without a residual where it is null.
struct HalfOutput {
  Bf16* y;
  std::ptrdiff_t row;
  const Bf16* residual;
  std::ptrdiff_t residual_row;
  const Act* act;
  std::ptrdiff_t channel;  // the first of the panel
};

template <int R, int NV>
inline __attribute__((always_inline)) void accumulate(const PairInput& in, Vec (&acc)[R][NV * kVecs]) {
  constexpr int groups = (R + 2) / 3;
  for (int v = 0; v < NV * kVecs; ++v) {
    const Vec b = load(in.bias + v * FASTVOC_WIDTH);
#pragma GCC unroll 32
    for (int r = 0; r < R; ++r) acc[r][v] = b;
  }
  const std::ptrdiff_t row = in.row, panel = in.panel;
  const Pair* w = in.w;
  for (int k = 0; k < in.taps; ++k) {
    const Pair* x[groups];
    for (int g = 0; g < groups; ++g) x[g] = in.x + k * in.tap + 3 * g * row;
    const int cin = in.cin;
#pragma GCC unroll 2
    for (int c = 0; c < cin; ++c) {
      PairVec wv[NV * kVecs];
      for (int v = 0; v < NV * kVecs; ++v) wv[v] = load_pairs(w + (v / kVecs) * panel + (v % kVecs) * FASTVOC_WIDTH);
#pragma GCC unroll 32
      for (int r = 0; r < R; ++r) {
        const Pair xv = x[r / 3][(r % 3) * row + c];
        for (int v = 0; v < NV * kVecs; ++v) acc[r][v] = dot_pairs(acc[r][v], wv[v], xv);
      }
      w += kPanel;
    }
  }
}

template <int R, int NV>
__attribute__((noinline)) void half_tile(const PairInput& in, const HalfOutput& out) {
  constexpr int columns = NV * kPanel;
  alignas(64) float rows[R * columns];
  {
    Vec acc[R][NV * kVecs];
    accumulate<R, NV>(in, acc);
#pragma GCC unroll 32
    for (int r = 0; r < R; ++r) {
      for (int v = 0; v < NV * kVecs; ++v) store(rows + r * columns + v * FASTVOC_WIDTH, acc[r][v]);
    }
  }
  for (int r = 0; out.residual && r < R; ++r) {
    const Bf16* added = out.residual + r * out.residual_row;
    for (int c = 0; c < columns; c += FASTVOC_WIDTH) {
      store(rows + r * columns + c, load(rows + r * columns + c) + load(added + c));
    }
  }
  activate_rows(*out.act, rows, columns, R, out.channel, columns);
  for (int r = 0; r < R; ++r) narrow_row(rows + r * columns, out.y + r * out.row, columns);
}

using HalfTileFn = void (*)(const PairInput&, const HalfOutput&);

template <int NV, int... R>
constexpr std::array<HalfTileFn, sizeof...(R) + 1> half_tile_table(std::integer_sequence<int, R...>) {
  return {nullptr, &half_tile<R + 1, NV>...};
}

template <int NV>
void half_tile_rows(PairInput in, HalfOutput out, std::int64_t rows) {
  constexpr int high = NV == 2 ? FASTVOC_ROWS2 : FASTVOC_ROWS1;
  static constexpr auto table = half_tile_table<NV>(std::make_integer_sequence<int, high>{});
  for (std::int64_t tiles = ceil_div(rows, high); tiles > 0; --tiles) {
    const std::int64_t n = ceil_div(rows, tiles);
    table[static_cast<std::size_t>(n)](in, out);
    in.x += n * in.row;
    out.y += n * out.row;
    if (out.residual) out.residual += n * out.residual_row;
    rows -= n;
  }
}

// All output channels of `rows` steps.
inline void conv_rows(const PairInput& in, const HalfOutput& out, std::int64_t rows, int panels) {
  const auto at = [&](int p) {
    PairInput input = in;
    HalfOutput output = out;
    input.w += p * in.panel;
    input.bias += p * kPanel;
    output.y += p * kPanel;
    output.channel += p * kPanel;
    if (output.residual) output.residual += p * kPanel;
    return std::pair{input, output};
  };
  int p = 0;
  for (; FASTVOC_ROWS2 > 0 && p + 2 <= panels; p += 2) {
    const auto [input, output] = at(p);
    half_tile_rows<FASTVOC_ROWS2 ? 2 : 1>(input, output, rows);
  }
  for (; p < panels; ++p) {
    const auto [input, output] = at(p);
    half_tile_rows<1>(input, output, rows);
  }
}

// Copies the steps [from, to), activated, into rows of padded width.
inline void load_rows(const SourceOf<Bf16>& source, std::int64_t from, std::int64_t to, Bf16* act, const Act& activation) {
  constexpr int kRows = 8;
  constexpr int kColumns = 512;
  alignas(64) float space[kRows * kColumns];
  const int width = padded(source.channels);
  for (std::int64_t t = from; t < to; t += kRows) {
    const int rows = static_cast<int>(std::min<std::int64_t>(kRows, to - t));
    for (int first = 0; first < width; first += kColumns) {
      const int columns = std::min(kColumns, width - first);
      const int valid = std::min(columns, source.channels - first);
      for (int r = 0; r < rows; ++r) {
        const Bf16* x = source.data + (t + r) * source.step + first * source.channel;
        float* y = space + r * columns;
        int c = 0;
        if (source.channel == 1) {
          for (; c + FASTVOC_WIDTH <= valid; c += FASTVOC_WIDTH) store(y + c, load(x + c));
        }
        for (; c < columns; ++c) y[c] = c < valid ? widen(x[c * source.channel]) : 0.0f;
      }
      activate_rows(activation, space, columns, rows, first, columns);
      for (int r = 0; r < rows; ++r) narrow_row(space + r * columns, act + (t - from + r) * width + first, columns);
    }
  }
}

// Copies rows of padded width to the steps from `t` on of the output.
inline void store_rows(const SinkOf<Bf16>& sink, std::int64_t t, const Bf16* rows, std::int64_t count) {
  const std::ptrdiff_t width = padded(sink.channels);
  for (std::int64_t i = 0; i < count; ++i) std::copy_n(rows + i * width, sink.channels, sink.data + (t + i) * sink.channels);
}

}  // namespace fastvoc::FASTVOC_ISA
