// The register tile on bfloat16 with results and residuals in bfloat16: rounded once, after everything.
#pragma once

#include "tile.h"

namespace fastvoc::FASTVOC_ISA {

// y = act(acc + bias + residual); without a residual where it is null.
struct HalfOutput {
  Bf16* y;
  std::ptrdiff_t row;
  const Bf16* residual;
  std::ptrdiff_t residual_row;
  const Act* act;
  std::ptrdiff_t channel;  // the first of the panel
};

// Finishes `count` rows of `columns` sums.
inline __attribute__((noinline)) void finish_half(const HalfOutput& out, float* rows, int count, int columns) {
  for (int r = 0; out.residual && r < count; ++r) {
    const Bf16* added = out.residual + r * out.residual_row;
    for (int c = 0; c < columns; c += FASTVOC_WIDTH) {
      store(rows + r * columns + c, load(rows + r * columns + c) + load(added + c));
    }
  }
  activate_rows(*out.act, rows, columns, count, out.channel, columns);
  for (int r = 0; r < count; ++r) narrow_row(rows + r * columns, out.y + r * out.row, columns);
}

template <int NV>
void half_tile_rows(TileInputOf<Bf16> in, HalfOutput out, std::int64_t rows) {
  constexpr int high = NV == 2 ? FASTVOC_ROWS2 : FASTVOC_ROWS1;
  static constexpr auto table = product_table<NV, Bf16>(std::make_integer_sequence<int, high>{});
  alignas(64) float sums[high * NV * kPanel];
  for (std::int64_t tiles = ceil_div(rows, high); tiles > 0; --tiles) {
    const std::int64_t n = ceil_div(rows, tiles);
    table[static_cast<std::size_t>(n)](in, sums);
    finish_half(out, sums, static_cast<int>(n), NV * kPanel);
    in.x += n * in.row;
    out.y += n * out.row;
    if (out.residual) out.residual += n * out.residual_row;
    rows -= n;
  }
}

// All output channels of `rows` steps.
inline void conv_rows(const TileInputOf<Bf16>& in, const HalfOutput& out, std::int64_t rows, int panels) {
  const auto at = [&](int p) {
    HalfOutput output = out;
    output.y += p * kPanel;
    output.channel += p * kPanel;
    if (output.residual) output.residual += p * kPanel;
    return std::pair{in.from(p), output};
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

// Copies rows of padded width to the steps from `t` on of the output.
inline void store_rows(const SinkOf<Bf16>& sink, std::int64_t t, const Bf16* rows, std::int64_t count) {
  const std::ptrdiff_t width = padded(sink.channels);
  for (std::int64_t i = 0; i < count; ++i) std::copy_n(rows + i * width, sink.channels, sink.data + (t + i) * sink.channels);
}

}  // namespace fastvoc::FASTVOC_ISA
