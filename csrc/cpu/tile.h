// The register tile that every convolution is made of: R output steps by NV panels of 16 output channels, summed over taps
// and input channels in one fixed order, so that a value never depends on where its tile lies.
#pragma once

#include "dot.h"

namespace fastvoc::FASTVOC_ISA {

// Input steps are rows of channels: step r, tap k reads x + r * row + k * tap. Weights are as in args.h, Filter.
template <class Element>
struct TileInputOf {
  const Element* x;
  std::ptrdiff_t row;
  std::ptrdiff_t tap;
  const typename Numbers<Element>::Weight* w;
  std::ptrdiff_t panel;
  const float* bias;
  int taps;
  int cin;
  const float* scale = nullptr;
  const std::int32_t* start = nullptr;

  // The panels from the p-th on.
  TileInputOf from(int p) const {
    TileInputOf in = *this;
    in.w += p * panel;
    in.bias += p * kPanel;
    if (scale) {
      in.scale += p * kPanel;
      in.start += p * kPanel;
    }
    return in;
  }
};

using TileInput = TileInputOf<float>;

// y = (acc + bias + residual + sum) * scale goes to `raw`, its activation to `act`; null pointers leave a part out.
template <class Element>
struct TileOutputOf {
  float* raw;
  Element* act;
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

using TileOutput = TileOutputOf<float>;

// The input of a convolution of `taps` taps over rows of padded width.
template <class Element>
TileInputOf<Element> tile_input(const Element* x, std::ptrdiff_t row, std::ptrdiff_t tap, const Filter<Element>& filter,
                                int taps, int cin) {
  const std::ptrdiff_t panel = static_cast<std::ptrdiff_t>(taps) * grouped<Element>(cin) * kPanel;
  return {x, row, tap, filter.weight, panel, filter.bias, taps, cin, filter.scale, filter.start};
}

// Few rows wait for their weights, whose lines are fetched so many ahead. A tile that is as high as the registers allow has
// nothing to gain.
constexpr int kAwaitedRows = FASTVOC_WIDTH == 16 ? 11 : 0;
constexpr int kAwaitedLines = 128;

template <int R, int NV, class Element>
inline __attribute__((always_inline)) void accumulate(const TileInputOf<Element>& in, Vec (&acc)[R][NV * kVecs]) {
  using D = Dot<Element>;
  typedef typename D::Word Word __attribute__((may_alias));
  constexpr int groups = (R + 2) / 3, lanes = Numbers<Element>::kGroup;
  constexpr bool whole = std::is_same_v<typename D::Sum, IntVec>;
  typename D::Sum sum[R][NV * kVecs];
#pragma GCC unroll 8
  for (int v = 0; v < NV * kVecs; ++v) {
    typename D::Sum first;
    if constexpr (whole) {
      std::memcpy(&first, in.start + v * FASTVOC_WIDTH, sizeof first);
    } else {
      first = load(in.bias + v * FASTVOC_WIDTH);
    }
#pragma GCC unroll 32
    for (int r = 0; r < R; ++r) sum[r][v] = first;
  }
  const std::ptrdiff_t row = in.row / lanes, tap = in.tap / lanes, panel = in.panel;
  const auto* const words = reinterpret_cast<const Word*>(in.x);
  const auto* w = in.w;
  const int count = (in.cin + lanes - 1) / lanes;
  for (int k = 0; k < in.taps; ++k) {
    const Word* x[groups];
#pragma GCC unroll 8
    for (int g = 0; g < groups; ++g) x[g] = words + k * tap + 3 * g * row;
#pragma GCC unroll 2
    for (int c = 0; c < count; ++c) {
      typename D::Weights wv[NV * kVecs];
#pragma GCC unroll 8
      for (int v = 0; v < NV * kVecs; ++v) {
        wv[v] = D::load_weights(w + (v / kVecs) * panel + (v % kVecs) * FASTVOC_WIDTH * lanes);
        if constexpr (R <= kAwaitedRows) __builtin_prefetch(w + v * panel + kAwaitedLines * kPanel * lanes);
      }
#pragma GCC unroll 32
      for (int r = 0; r < R; ++r) {
        const typename D::Weights xv = D::spread(x[r / 3][(r % 3) * row + c]);
#pragma GCC unroll 8
        for (int v = 0; v < NV * kVecs; ++v) sum[r][v] = D::add(sum[r][v], wv[v], xv);
      }
      w += kPanel * lanes;
    }
  }
#pragma GCC unroll 8
  for (int v = 0; v < NV * kVecs; ++v) {
#pragma GCC unroll 32
    for (int r = 0; r < R; ++r) {
      if constexpr (whole) {
        const Vec product = __builtin_convertvector(sum[r][v], Vec);
        acc[r][v] = product * load(in.scale + v * FASTVOC_WIDTH) + load(in.bias + v * FASTVOC_WIDTH);
      } else {
        acc[r][v] = sum[r][v];
      }
    }
  }
}

// What becomes of the results of a tile, known before its rows are walked: their activation alone, that of the first of a
// layer's two convolutions; with the residual, which is kept too, that of the second; results as they are; with the residual,
// those of a block; with the residual and the sum of the blocks before, times the scale, as they are or rounded; or whatever the
// pointers say.
enum class Fate { kAct, kLayer, kRaw, kBlock, kMean, kRounded, kAny };

// use(fate) with the fate of the results as a constant.
template <class Element, class Use>
inline __attribute__((always_inline)) void with_fate(const TileOutputOf<Element>& out, const Use& use) {
  const bool scaled = out.scale != 1.0f;
  if (out.raw && !out.act && out.residual && out.sum) {
    use(std::integral_constant<Fate, Fate::kMean>{});
  } else if (!out.raw && out.act && out.residual && out.sum) {
    use(std::integral_constant<Fate, Fate::kRounded>{});
  } else if (out.raw && !out.act && !out.sum && !scaled) {
    out.residual ? use(std::integral_constant<Fate, Fate::kBlock>{}) : use(std::integral_constant<Fate, Fate::kRaw>{});
  } else if (out.act && !out.sum && !scaled && !out.residual == !out.raw) {
    out.raw ? use(std::integral_constant<Fate, Fate::kLayer>{}) : use(std::integral_constant<Fate, Fate::kAct>{});
  } else {
    use(std::integral_constant<Fate, Fate::kAny>{});
  }
}

// How a vector of results lies in memory: in one piece.
struct WholeRow {
  inline __attribute__((always_inline)) Vec read(const float* p) const { return load(p); }
  template <class Element, class Elements>
  inline __attribute__((always_inline)) void write(Element* p, Elements v) const {
    std::memcpy(p, &v, sizeof v);
  }
};

// Finishes y, the results of row r from column c on, and returns what is activated.
template <Fate fate, class Lie, class Element>
inline __attribute__((always_inline)) Vec finish_vector(const TileOutputOf<Element>& out, const Act& activation, float slope,
                                                         std::ptrdiff_t r, std::ptrdiff_t c, Vec y, const Lie& lie) {
  constexpr bool any = fate == Fate::kAny, rounded = fate == Fate::kRounded, layer = fate == Fate::kLayer;
  constexpr bool mean = fate == Fate::kMean || rounded;
  constexpr bool block = mean || fate == Fate::kBlock;
  if (layer || block || (any && out.residual)) y += lie.read(out.residual + r * out.residual_row + c);
  if (mean || (any && out.sum)) y += lie.read(out.sum + r * out.sum_row + c);
  if (mean || (any && out.scale != 1.0f)) y *= out.scale;
  if (layer || (block && !rounded) || fate == Fate::kRaw || (any && out.raw)) lie.write(out.raw + r * out.raw_row + c, y);
  if (layer || rounded || fate == Fate::kAct || (any && out.act)) {
    lie.write(out.act + r * out.act_row + c, to_elements(leaky(y, slope), activation, Element{}));
  }
  return y;
}

template <Fate fate, int R, int NV, class Element>
inline __attribute__((always_inline)) void finish_as(const TileOutputOf<Element> out, Vec (&acc)[R][NV * kVecs]) {
  const Act activation = out.act ? *out.activation : Act{};
  const float slope = activation.leak();
#pragma GCC unroll 32
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < NV * kVecs; ++v) {
      finish_vector<fate>(out, activation, slope, r, v * FASTVOC_WIDTH, acc[r][v], WholeRow{});
    }
  }
}

template <int R, int NV, class Element>
inline __attribute__((always_inline)) void finish(const TileOutputOf<Element>& out, Vec (&acc)[R][NV * kVecs]) {
  with_fate(out, [&](auto fate) __attribute__((always_inline)) { finish_as<decltype(fate)::value, R, NV>(out, acc); });
}

// Any activation of `count` rows of floats, in place, and as they are multiplied.
template <class Element>
void activate_to(const TileOutputOf<Element>& out, float* rows, int count, int columns) {
  activate_rows(*out.activation, rows, columns, count, out.channel, columns);
  for (int r = 0; r < count; ++r) {
    for (int c = 0; c < columns; c += FASTVOC_WIDTH) {
      put(out.act + r * out.act_row + c, load(rows + r * columns + c), *out.activation);
    }
  }
}

template <int R, int NV, class Element>
__attribute__((noinline)) void tile(const TileInputOf<Element>& in, const TileOutputOf<Element>& out) {
  constexpr int columns = NV * kPanel;
  Vec acc[R][NV * kVecs];
  accumulate<R, NV>(in, acc);
  const bool later = out.act && out.activation->kind != ActKind::kLeaky;
  if constexpr (std::is_same_v<Element, float>) {
    finish<R, NV>(out, acc);
    if (later) activate_rows(*out.activation, out.act, out.act_row, R, out.channel, columns);
  } else if (!later) {
    finish<R, NV>(out, acc);
  } else {
    alignas(64) float rows[R * columns];
    finish_as<Fate::kAny, R, NV>(TileOutput{out.raw, rows, out.residual, out.sum, out.raw_row, columns, out.residual_row,
                                            out.sum_row, out.activation, out.channel, out.scale},
                                 acc);
    activate_to(out, rows, R, columns);
  }
}

template <class Element>
using TileFn = void (*)(const TileInputOf<Element>&, const TileOutputOf<Element>&);

template <int NV, class Element, int... R>
constexpr std::array<TileFn<Element>, sizeof...(R) + 1> tile_table(std::integer_sequence<int, R...>) {
  return {nullptr, &tile<R + 1, NV, Element>...};
}

// Runs `rows` steps of the panels from `panel` on (one or two) in tiles as high as the registers allow.
template <int NV, class Element>
void tile_rows(TileInputOf<Element> in, TileOutputOf<Element> out, std::int64_t rows) {
  constexpr int high = NV == 2 ? FASTVOC_ROWS2 : FASTVOC_ROWS1;
  static constexpr auto table = tile_table<NV, Element>(std::make_integer_sequence<int, high>{});
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

template <class Element>
TileOutputOf<Element> shifted(TileOutputOf<Element> out, std::ptrdiff_t columns) {
  if (out.raw) out.raw += columns;
  if (out.act) out.act += columns;
  if (out.residual) out.residual += columns;
  if (out.sum) out.sum += columns;
  out.channel += columns;
  return out;
}

// All output channels of `rows` steps: panels outermost, so that a panel's weights stay near while the steps go by.
template <class Element>
void conv_rows(const TileInputOf<Element>& in, const TileOutputOf<Element>& out, std::int64_t rows, int panels) {
  int p = 0;
  for (; FASTVOC_ROWS2 > 0 && p + 2 <= panels; p += 2) {
    tile_rows<FASTVOC_ROWS2 ? 2 : 1>(in.from(p), shifted(out, p * kPanel), rows);
  }
  for (; p < panels; ++p) tile_rows<1>(in.from(p), shifted(out, p * kPanel), rows);
}

}  // namespace fastvoc::FASTVOC_ISA
