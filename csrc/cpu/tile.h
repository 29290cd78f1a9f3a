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

// So many products of floats are added up before they join the rest, since what a sum loses grows with its length. The points
// of Toom-Cook lose more in their transforms, so that less may go here.
constexpr int kSummed = 128;
constexpr int kSummedPoints = 64;

template <int R, int NV, int kTogether = kSummed, class Element>
inline __attribute__((always_inline)) void accumulate(const TileInputOf<Element>& in, Vec (&acc)[R][NV * kVecs]) {
  using D = Dot<Element>;
  typedef typename D::Word Word __attribute__((may_alias));
  constexpr int groups = (R + 2) / 3, lanes = Numbers<Element>::kGroup;
  constexpr bool whole = std::is_same_v<typename D::Sum, IntVec>, split = std::is_same_v<Element, float>;
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
  const auto add = [&](int k, int from, int to) __attribute__((always_inline)) {
    const Word* x[groups];
#pragma GCC unroll 8
    for (int g = 0; g < groups; ++g) x[g] = words + k * tap + 3 * g * row;
#pragma GCC unroll 2
    for (int c = from; c < to; ++c) {
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
  };
  if constexpr (split) {
    Vec before[R][NV * kVecs];  // what the sums up to now give
    bool any = false;
    int room = kTogether;
    const auto each = [](const auto& use) __attribute__((always_inline)) {
#pragma GCC unroll 8
      for (int v = 0; v < NV * kVecs; ++v) {
#pragma GCC unroll 32
        for (int r = 0; r < R; ++r) use(r, v);
      }
    };
    for (int k = 0; k < in.taps; ++k) {
      for (int from = 0, to; from < count; from = to) {
        to = std::min(from + kTogether, count);
        if (room < to - from) {
          each([&](int r, int v) __attribute__((always_inline)) {
            before[r][v] = any ? before[r][v] + sum[r][v] : sum[r][v];
            sum[r][v] = Vec{};
          });
          any = true;
          room = kTogether;
        }
        room -= to - from;
        add(k, from, to);
      }
    }
    if (any) each([&](int r, int v) __attribute__((always_inline)) { sum[r][v] = before[r][v] + sum[r][v]; });
  } else {
    for (int k = 0; k < in.taps; ++k) add(k, 0, count);
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

template <class Element>
inline __attribute__((always_inline)) Fate fate_of(const TileOutputOf<Element>& out) {
  if (out.residual && out.sum) return out.raw && !out.act ? Fate::kMean : !out.raw && out.act ? Fate::kRounded : Fate::kAny;
  if (out.sum || out.scale != 1.0f) return Fate::kAny;
  if (out.raw && !out.act) return out.residual ? Fate::kBlock : Fate::kRaw;
  if (out.act && !out.residual == !out.raw) return out.raw ? Fate::kLayer : Fate::kAct;
  return Fate::kAny;
}

// use(fate) with the fate of the results as a constant where it is one of `fates`, else kAny.
template <Fate... fates, class Element, class Use>
inline __attribute__((always_inline)) void with_fate(const TileOutputOf<Element>& out, const Use& use) {
  const Fate fate = fate_of(out);
  const bool known = ((fate == fates && (use(std::integral_constant<Fate, fates>{}), true)) || ...);
  if (!known) use(std::integral_constant<Fate, Fate::kAny>{});
}

// The same for what mrf's convolutions give; activations other than a leaky ReLU are not foreseen.
template <class Element, class Use>
inline __attribute__((always_inline)) void with_known_fate(const TileOutputOf<Element>& out, const Use& use) {
  using enum Fate;
  if (out.act && out.activation->kind != ActKind::kLeaky) {
    use(std::integral_constant<Fate, kAny>{});
  } else if constexpr (std::is_same_v<Element, Bf16>) {
    with_fate<kAct, kLayer, kBlock, kMean, kRounded>(out, use);
  } else {
    with_fate<kAct, kLayer, kBlock, kMean>(out, use);
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

// Finishes `count` rows of results that lie in memory, whatever becomes of them: one function for tiles of every height.
template <class Element>
__attribute__((noinline)) void finish_any(const TileOutputOf<Element>& out, float* rows, int count, int columns) {
  constexpr bool floats = std::is_same_v<Element, float>;
  const Act activation = out.act ? *out.activation : Act{};
  const bool curved = activation.kind != ActKind::kLeaky, kept = curved && !floats;
  TileOutputOf<Element> now = out;
  if (kept) now.act = nullptr;
  with_fate<Fate::kAct, Fate::kRaw, Fate::kBlock>(now, [&](auto fate) {
    for (int r = 0; r < count; ++r) {
      for (int c = 0; c < columns; c += FASTVOC_WIDTH) {
        float* const at = rows + r * columns + c;
        const Vec y = finish_vector<decltype(fate)::value>(now, activation, activation.leak(), r, c, load(at), WholeRow{});
        if (kept) store(at, y);
      }
    }
  });
  if constexpr (floats) {
    if (curved) activate_rows(activation, out.act, out.act_row, count, out.channel, columns);
  } else {
    if (curved) activate_to(out, rows, count, columns);
  }
}

// Sums as rows that lie close together.
template <int R, int NV>
inline __attribute__((always_inline)) void store_tile(float* rows, const Vec (&acc)[R][NV * kVecs]) {
#pragma GCC unroll 32
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < NV * kVecs; ++v) store(rows + r * NV * kPanel + v * FASTVOC_WIDTH, acc[r][v]);
  }
}

// A tile whose results are finished elsewhere, in rows that lie close together.
template <int R, int NV, class Element>
__attribute__((noinline)) void product_tile(const TileInputOf<Element>& in, float* y) {
  Vec acc[R][NV * kVecs];
  accumulate<R, NV, kSummedPoints>(in, acc);
  store_tile<R, NV>(y, acc);
}

template <int NV, class Element, int... R>
constexpr std::array<void (*)(const TileInputOf<Element>&, float*), sizeof...(R) + 1> product_table(
    std::integer_sequence<int, R...>) {
  return {nullptr, &product_tile<R + 1, NV, Element>...};
}

template <int R, int NV, class Element>
inline __attribute__((always_inline)) void finish_spilled(const TileOutputOf<Element>& out, const Vec (&acc)[R][NV * kVecs]) {
  alignas(64) float rows[R * NV * kPanel];
  store_tile<R, NV>(rows, acc);
  finish_any(out, rows, R, NV * kPanel);
}

// Finishes the results of a tile with one of `fates` where they lie, in the registers.
template <int R, int NV, Fate... fates, class Element>
inline __attribute__((always_inline)) void finish(const TileOutputOf<Element>& given, Vec (&acc)[R][NV * kVecs]) {
  const TileOutputOf<Element> out = given;
  const Act activation = out.act ? *out.activation : Act{};
  const bool curved = activation.kind != ActKind::kLeaky;
  const float slope = activation.leak();
  if constexpr (!std::is_same_v<Element, float>) {
    if (curved) return finish_spilled<R, NV>(given, acc);
  }
  with_fate<fates...>(out, [&](auto fate) __attribute__((always_inline)) {
    if constexpr (decltype(fate)::value == Fate::kAny) {
      finish_spilled<R, NV>(given, acc);
    } else {
#pragma GCC unroll 32
      for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
        for (int v = 0; v < NV * kVecs; ++v) {
          finish_vector<decltype(fate)::value>(out, activation, slope, r, v * FASTVOC_WIDTH, acc[r][v], WholeRow{});
        }
      }
      if constexpr (std::is_same_v<Element, float> && (decltype(fate)::value == Fate::kAct || decltype(fate)::value == Fate::kLayer)) {
        if (curved) activate_rows(activation, out.act, out.act_row, R, out.channel, NV * kPanel);
      }
    }
  });
}

template <int R, int NV, class Element>
__attribute__((noinline)) void tile(const TileInputOf<Element>& in, const TileOutputOf<Element>& out) {
  using enum Fate;
  Vec acc[R][NV * kVecs];
  accumulate<R, NV>(in, acc);
  if constexpr (std::is_same_v<Element, Bf16>) {
    finish<R, NV, kAct, kLayer, kRaw, kBlock, kMean, kRounded>(out, acc);
  } else {
    finish<R, NV, kAct, kLayer, kRaw, kBlock, kMean>(out, acc);
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
