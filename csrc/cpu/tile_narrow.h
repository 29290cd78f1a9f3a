// The register tiles of stages whose rows are half a panel or one panel wide: a step's input, read once, serves two output
// steps a dilation apart, and of half a panel every lane multiplies.
//
// Where a row has 8 channels a lane is (output i, half h) = 2 i + h: it multiplies the h-th of every two groups of input
// channels, and in the end the lanes of an output are added. Weights are [tap][two groups][8 outputs][2 halves][group]; bias,
// scale and start hold the 8 channels twice.
#pragma once

#include "lanes.h"
#include "tile.h"

namespace fastvoc::FASTVOC_ISA {

constexpr int kHalfPanel = kPanel / 2;
// Output steps that share what they read: two where the registers hold them.
constexpr int kShared = FASTVOC_WIDTH == kPanel ? 2 : 1;

// One multiplication's view of an input step: a group of channels for all lanes, or one for the even and one for the odd.
template <bool kHalf, class Element>
struct NarrowInput : Dot<Element> {};

template <class Element>
struct NarrowInput<true, Element> : Dot<Element> {
  using Word = std::uint64_t;
  static inline __attribute__((always_inline)) typename Dot<Element>::Weights spread(Word x) {
    typedef std::uint64_t Words __attribute__((vector_size(FASTVOC_WIDTH * sizeof(float))));
    return (typename Dot<Element>::Weights)(Words{} + x);
  }
};

template <int R, int S, class Sum>
using NarrowSums = Sum[R][S][kVecs];

// Adds the taps [from, to) of the output steps First to Last - 1 of every row; the tap of an output step is as many less as it
// comes later.
template <int First, int Last, bool kHalf, int R, int S, class Element>
inline __attribute__((always_inline)) void narrow_taps(const TileInputOf<Element>& in, int from, int to,
                                                       NarrowSums<R, S, typename Dot<Element>::Sum>& sum) {
  using D = Dot<Element>;
  using Input = NarrowInput<kHalf, Element>;
  constexpr int lanes = Numbers<Element>::kGroup, words = (kHalf ? 2 : 1) * lanes;
  const int count = kHalf ? kHalfPanel / words : (in.cin + lanes - 1) / lanes;
  const std::ptrdiff_t tap_weights = static_cast<std::ptrdiff_t>(count) * kPanel * lanes;
  for (int k = from; k < to; ++k) {
    const WordRows<R, Input> x(in.x + k * in.tap, in.row / words);
    const auto* w = in.w + k * tap_weights;
    for (int c = 0; c < count; ++c) {
      typename D::Weights wv[S][kVecs];
#pragma GCC unroll 2
      for (int s = First; s < Last; ++s) {
#pragma GCC unroll 8
        for (int v = 0; v < kVecs; ++v) wv[s][v] = D::load_weights(w - s * tap_weights + v * FASTVOC_WIDTH * lanes);
      }
#pragma GCC unroll 32
      for (int r = 0; r < R; ++r) {
        const typename D::Weights xv = x(r, c);
#pragma GCC unroll 2
        for (int s = First; s < Last; ++s) {
#pragma GCC unroll 8
          for (int v = 0; v < kVecs; ++v) sum[r][s][v] = D::add(sum[r][s][v], wv[s][v], xv);
        }
      }
      w += kPanel * lanes;
    }
  }
}

using HalfRow = VecOf<kHalfPanel>::unaligned;

template <int... L>
inline __attribute__((always_inline)) Vec join_halves(HalfRow low, HalfRow high, std::integer_sequence<int, L...>) {
  return __builtin_shufflevector(low, high, L...);
}

template <class Elements, int... L>
inline __attribute__((always_inline)) auto part_of(Elements v, std::integer_sequence<int, L...>) {
  return __builtin_shufflevector(v, v, L...);
}

// The lower half of a vector of results in one row, the upper half in the one `apart` elements on, or nowhere.
template <bool kTwo>
struct HalfRows {
  std::ptrdiff_t apart;

  inline __attribute__((always_inline)) Vec read(const float* p) const {
    const HalfRow low = *reinterpret_cast<const HalfRow*>(p);
    const HalfRow high = kTwo ? *reinterpret_cast<const HalfRow*>(p + apart) : low;
    return join_halves(low, high, Lanes{});
  }

  template <class Element, class Elements>
  inline __attribute__((always_inline)) void write(Element* p, Elements v) const {
    const auto low = part_of(v, std::integer_sequence<int, 0, 1, 2, 3, 4, 5, 6, 7>{});
    std::memcpy(p, &low, sizeof low);
    if constexpr (kTwo) {
      const auto high = part_of(v, std::integer_sequence<int, 8, 9, 10, 11, 12, 13, 14, 15>{});
      std::memcpy(p + apart, &high, sizeof high);
    }
  }
};

// The results of a row of a tile: the lanes of an output added, and floats made of whole numbers.
template <bool kHalf, int S, int N, class Element>
inline __attribute__((always_inline)) void narrow_results(const TileInputOf<Element>& in,
                                                          const typename Dot<Element>::Sum (&sum)[S][kVecs], Vec (&y)[N]) {
  using Sum = typename Dot<Element>::Sum;
  constexpr auto even = [](int lane) { return 2 * lane; };
  constexpr auto odd = [](int lane) { return 2 * lane + 1; };
#pragma GCC unroll 8
  for (int v = 0; v < N; ++v) {
    const std::ptrdiff_t at = v % kVecs * FASTVOC_WIDTH;
    Sum total = sum[v / kVecs % S][v % kVecs];
    if constexpr (kHalf) {
      const Vec a = (Vec)sum[2 * v / kVecs % S][2 * v % kVecs], b = (Vec)sum[(2 * v + 1) / kVecs % S][(2 * v + 1) % kVecs];
      total = (Sum)shuffle(a, b, lane_sequence(even, Lanes{})) + (Sum)shuffle(a, b, lane_sequence(odd, Lanes{}));
      total += first_sum(in, at);
    }
    y[v] = result_of(in, total, at);
  }
}

// How the vectors of results of a row of S output steps lie, `apart` elements from one another: use(lie).
template <bool kHalf, int S, class Use>
inline __attribute__((always_inline)) void with_lie(std::ptrdiff_t apart, const Use& use) {
  if constexpr (!kHalf || FASTVOC_WIDTH < kPanel) {
    use(WholeRow{});
  } else if constexpr (S == 1) {
    use(HalfRows<false>{0});
  } else if (apart == kHalfPanel) {
    use(WholeRow{});
  } else {
    use(HalfRows<true>{apart});
  }
}

// Vectors of results in a row of S output steps.
template <bool kHalf, int S>
constexpr int kNarrowVectors = kHalf ? (S * kVecs + 1) / 2 : S * kVecs;

// Where the v-th of them lies: two steps of a whole panel are two vectors; else the vectors are those of one row.
inline __attribute__((always_inline)) std::ptrdiff_t narrow_column(int v, std::ptrdiff_t apart) {
  return kVecs == 1 ? v * apart : v * FASTVOC_WIDTH;
}

// Finishes `count` rows of results that lie in memory, whatever becomes of them: one function for tiles of every height.
template <bool kHalf, int S, class Element>
__attribute__((noinline)) void finish_narrow(const TileOutputOf<Element>& out, float* rows, int count, std::ptrdiff_t apart) {
  constexpr int made = kNarrowVectors<kHalf, S>;
  const Act activation = out.act ? *out.activation : Act{};
  const bool later = activation.kind != ActKind::kLeaky;
  TileOutputOf<Element> now = out;
  if (later) now.act = nullptr;
  with_lie<kHalf, S>(apart, [&](auto lie) {
    with_known_fate(now, [&](auto fate) {
      for (int i = 0; i < count * made; ++i) {
        float* const at = rows + i * FASTVOC_WIDTH;
        const std::ptrdiff_t c = narrow_column(i % made, apart);
        store(at, finish_vector<decltype(fate)::value>(now, activation, activation.leak(), i / made, c, load(at), lie));
      }
    });
    if (!later) return;
    constexpr int width = std::min(made * FASTVOC_WIDTH, kPanel);
    activate_rows(activation, rows, width, count * made * FASTVOC_WIDTH / width, 0, width);
    for (int i = 0; i < count * made; ++i) {
      lie.write(out.act + i / made * out.act_row + narrow_column(i % made, apart),
                to_elements(load(rows + i * FASTVOC_WIDTH), activation, Element{}));
    }
  });
}

// Rows of the highest tile of S output steps each.
template <int S>
constexpr int kNarrowHigh = S == 2 ? 12 : FASTVOC_WIDTH == kPanel ? 4 : FASTVOC_ROWS1;

// R rows of S output steps each, `apart` elements from one another.
template <bool kHalf, int R, int S, class Element>
__attribute__((noinline)) void narrow_tile(const TileInputOf<Element>& in, const TileOutputOf<Element>& given,
                                           std::ptrdiff_t apart) {
  using Sum = typename Dot<Element>::Sum;
  static_assert(S == 1 || kVecs == 1);
  constexpr int made = kNarrowVectors<kHalf, S>;
  Sum sum[R][S][kVecs];
#pragma GCC unroll 8
  for (int v = 0; v < kVecs; ++v) {
    const Sum first = kHalf ? Sum{} : first_sum(in, v * FASTVOC_WIDTH);
#pragma GCC unroll 2
    for (int s = 0; s < S; ++s) {
#pragma GCC unroll 32
      for (int r = 0; r < R; ++r) sum[r][s][v] = first;
    }
  }
  if constexpr (S == 2) {
    narrow_taps<0, 1, kHalf, R, S>(in, 0, 1, sum);
    narrow_taps<0, 2, kHalf, R, S>(in, 1, in.taps, sum);
    narrow_taps<1, 2, kHalf, R, S>(in, in.taps, in.taps + 1, sum);
  } else {
    narrow_taps<0, 1, kHalf, R, S>(in, 0, in.taps, sum);
  }
  const TileOutputOf<Element> out = given;
  const Act activation = out.act ? *out.activation : Act{};
  const float slope = activation.leak();
  // use(y, r, v) for every vector of results.
  const auto each = [&](const auto& use) __attribute__((always_inline)) {
#pragma GCC unroll 32
    for (int r = 0; r < R; ++r) {
      Vec y[made];
      narrow_results<kHalf, S>(in, sum[r], y);
#pragma GCC unroll 8
      for (int v = 0; v < made; ++v) use(y[v], r, v);
    }
  };
  const auto finish = [&](auto fate) __attribute__((always_inline)) {
    if constexpr (decltype(fate)::value == Fate::kAny) {
      alignas(64) float results[R * made * FASTVOC_WIDTH];
      each([&](const Vec& y, int r, int v) __attribute__((always_inline)) { store(results + (r * made + v) * FASTVOC_WIDTH, y); });
      finish_narrow<kHalf, S>(given, results, R, apart);
    } else {
      with_lie<kHalf, S>(apart, [&](auto lie) __attribute__((always_inline)) {
        each([&](const Vec& y, int r, int v) __attribute__((always_inline)) {
          finish_vector<decltype(fate)::value>(out, activation, slope, r, narrow_column(v, apart), y, lie);
        });
      });
    }
  };
  // Almost all rows are those of the highest tiles; others are not worth code of their own.
  if constexpr (R < kNarrowHigh<S> || S < kShared) {
    finish(std::integral_constant<Fate, Fate::kAny>{});
  } else {
    with_known_fate(out, finish);
  }
}

// `rows` rows of a tile, as tile_rows().
template <bool kHalf, int S, class Element>
void narrow_tile_rows(TileInputOf<Element> in, TileOutputOf<Element> out, std::ptrdiff_t apart, std::int64_t rows) {
  static constexpr auto table = by_height<kNarrowHigh<S>, 6>([]<int R>() { return &narrow_tile<kHalf, R, S, Element>; });
  over_tiles(table, rows, [&](auto run, std::int64_t n) {
    run(in, out, apart);
    in.x += n * in.row;
    out.move(n);
  });
}

// `steps` output steps of a convolution with this dilation; inputs and outputs are dense rows of half a panel or one. Every
// output is a sum of its own in one fixed order, whichever steps share a tile.
template <bool kHalf, class Element>
void narrow_rows(TileInputOf<Element> in, TileOutputOf<Element> out, int dilation, std::int64_t steps) {
  constexpr int width = kHalf ? kHalfPanel : kPanel;
  const std::ptrdiff_t apart = static_cast<std::ptrdiff_t>(dilation) * width;
  const auto part = [&](auto shared, std::ptrdiff_t first, std::ptrdiff_t row, std::int64_t rows) {
    TileInputOf<Element> input = in;
    input.x += first * width;
    input.row = row * width;
    TileOutputOf<Element> output = out;
    output.move(first);
    output.raw_row = output.act_row = output.residual_row = output.sum_row = row * width;
    narrow_tile_rows<kHalf, decltype(shared)::value>(input, output, apart, rows);
  };
  using One = std::integral_constant<int, 1>;
  if constexpr (kShared == 1) {
    part(One{}, 0, 1, steps);
  } else {
    using Two = std::integral_constant<int, 2>;
    const std::int64_t blocks = steps / (2 * dilation), done = blocks * 2 * dilation, rest = steps - done;
    for (int phase = 0; blocks > 0 && phase < dilation; ++phase) part(Two{}, phase, 2 * dilation, blocks);
    const std::int64_t both = std::max<std::int64_t>(rest - dilation, 0);
    part(Two{}, done, 1, both);
    part(One{}, done + both, 1, std::min<std::int64_t>(rest, dilation) - both);
  }
}

}  // namespace fastvoc::FASTVOC_ISA
