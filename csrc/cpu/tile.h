// The register tile that every convolution is made of: R output steps by NV panels of 16 output channels, summed over taps
// and input channels in one fixed order, so that a value never depends on where its tile lies.
#pragma once

#include "results.h"
#include "rows.h"

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

// What the sums of the outputs from lane `at` on begin with: the bias, of whole numbers their start.
template <class Element>
inline __attribute__((always_inline)) typename Dot<Element>::Sum first_sum(const TileInputOf<Element>& in, std::ptrdiff_t at) {
  if constexpr (std::is_same_v<typename Dot<Element>::Sum, IntVec>) {
    IntVec first;
    std::memcpy(&first, in.start + at, sizeof first);
    return first;
  } else {
    return load(in.bias + at);
  }
}

// Their results: floats made of whole numbers.
template <class Element>
inline __attribute__((always_inline)) Vec result_of(const TileInputOf<Element>& in, typename Dot<Element>::Sum sum,
                                                    std::ptrdiff_t at) {
  if constexpr (std::is_same_v<typename Dot<Element>::Sum, IntVec>) {
    return __builtin_convertvector(sum, Vec) * load(in.scale + at) + load(in.bias + at);
  } else {
    return sum;
  }
}

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
  constexpr int vecs = NV * kVecs, lanes = Numbers<Element>::kGroup;
  constexpr bool split = std::is_same_v<Element, float>;
  typename D::Sum sum[R][vecs];
  begin_sums(sum, [&](int v) __attribute__((always_inline)) { return first_sum(in, v * FASTVOC_WIDTH); });
  const std::ptrdiff_t row = in.row / lanes, tap = in.tap, panel = in.panel;
  const auto* w = in.w;
  const int count = (in.cin + lanes - 1) / lanes;
  const auto add = [&](int k, int from, int to) __attribute__((always_inline)) {
    const WordRows<R, D> x(in.x + k * tap, row);
#pragma GCC unroll 2
    for (int c = from; c < to; ++c) {
      typename D::Weights wv[vecs];
#pragma GCC unroll 8
      for (int v = 0; v < vecs; ++v) {
        wv[v] = D::load_weights(w + (v / kVecs) * panel + (v % kVecs) * FASTVOC_WIDTH * lanes);
        if constexpr (R <= kAwaitedRows) __builtin_prefetch(w + v * panel + kAwaitedLines * kPanel * lanes);
      }
      add_products(sum, wv, x, c);
      w += kPanel * lanes;
    }
  };
  if constexpr (split) {
    Vec before[R][vecs];  // what the sums up to now give
    bool any = false;
    int room = kTogether;
    const auto each = [](const auto& use) __attribute__((always_inline)) {
#pragma GCC unroll 8
      for (int v = 0; v < vecs; ++v) {
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
  for (int v = 0; v < vecs; ++v) {
#pragma GCC unroll 32
    for (int r = 0; r < R; ++r) acc[r][v] = result_of(in, sum[r][v], v * FASTVOC_WIDTH);
  }
}

// A tile whose results are finished elsewhere, in rows `row` floats from one another.
template <int R, int NV, class Element>
__attribute__((noinline)) void product_tile(const TileInputOf<Element>& in, float* y, std::ptrdiff_t row) {
  Vec acc[R][NV * kVecs];
  accumulate<R, NV, kSummedPoints>(in, acc);
  store_sums(y, row, acc);
}

// A tile of floats, whose results are finished where they lie, in the registers, if their fate is foreseen. Tiles of up to three
// quarters of the height are few, and are not worth code of their own.
template <int R, int NV>
__attribute__((noinline)) void tile(const TileInput& in, const TileOutput& given) {
  using enum Fate;
  Vec acc[R][NV * kVecs];
  accumulate<R, NV>(in, acc);
  const auto finish_spilled = [&]() __attribute__((always_inline)) {
    alignas(64) float rows[R * NV * kPanel];
    store_sums(rows, NV * kPanel, acc);
    finish_any(given, rows, R, NV * kPanel);
  };
  if constexpr (4 * R <= 3 * kHigh<NV>) return finish_spilled();
  const TileOutput out = given;
  const Act activation = out.act ? *out.activation : Act{};
  const float slope = activation.leak();
  with_fate<kAct, kLayer, kRaw, kBlock, kMean>(out, [&](auto constant) __attribute__((always_inline)) {
    constexpr Fate fate = decltype(constant)::value;
    if constexpr (fate == kAny) {
      finish_spilled();
    } else {
#pragma GCC unroll 32
      for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
        for (int v = 0; v < NV * kVecs; ++v) {
          finish_vector<fate>(out, activation, slope, r, v * FASTVOC_WIDTH, acc[r][v], WholeRow{});
        }
      }
      if constexpr (fate == kAct || fate == kLayer) {
        if (out.curved()) activate_rows(activation, out.act, out.act_row, R, out.channel, NV * kPanel);
      }
    }
  });
}

template <int NV, class Element>
constexpr auto kProducts = by_height<kHigh<NV>, kEvery<NV>>([]<int R>() { return &product_tile<R, NV, Element>; });

// The sums of `rows` rows of NV panels, as rows that lie close together.
template <int NV, class Element>
void product_rows(TileInputOf<Element> in, float* y, std::int64_t rows) {
  over_tiles(kProducts<NV, Element>, rows, [&](auto product, std::int64_t n) {
    product(in, y, NV * kPanel);
    in.x += n * in.row;
    y += n * NV * kPanel;
  });
}

// Runs `rows` steps of NV panels. Products of other numbers than floats, or with a residual of others, are finished in memory,
// where one function does so for tiles of every height.
template <int NV, class Element, class Added>
void tile_rows(TileInputOf<Element> in, TileOutputOf<Element, Added> out, std::int64_t rows) {
  const auto next = [&](std::int64_t n) {
    in.x += n * in.row;
    out.move(n);
  };
  if constexpr (std::is_same_v<Added, float> && std::is_same_v<Element, float>) {
    static constexpr auto table = by_height<kHigh<NV>, kEvery<NV>>([]<int R>() { return &tile<R, NV>; });
    over_tiles(table, rows, [&](auto run, std::int64_t n) {
      run(in, out);
      next(n);
    });
  } else {
    alignas(64) float sums[kHigh<NV> * NV * kPanel];
    const bool raw = fate_of(out) == Fate::kRaw;
    over_tiles(kProducts<NV, Element>, rows, [&](auto product, std::int64_t n) {
      product(in, raw ? out.raw : sums, raw ? out.raw_row : NV * kPanel);
      if (!raw) finish_any(out, sums, static_cast<int>(n), NV * kPanel);
      next(n);
    });
  }
}

// All output channels of `rows` steps: panels outermost, so that a panel's weights stay near while the steps go by.
template <class Element, class Added>
void conv_rows(const TileInputOf<Element>& in, const TileOutputOf<Element, Added>& out, std::int64_t rows, int panels) {
  over_panels(0, panels, [&](auto number, int p) { tile_rows<decltype(number)::value>(in.from(p), out.from(p), rows); });
}

}  // namespace fastvoc::FASTVOC_ISA
