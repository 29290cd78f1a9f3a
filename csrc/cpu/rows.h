// How every product is cut: output channels into panels, two at a time where the registers hold them, steps into tiles of rows.
#pragma once

#include "dot.h"

namespace fastvoc::FASTVOC_ISA {

// Rows of the highest tile of NV panels, and up to which there is one of every height. Beyond it an odd number is cut in two
// halves, which keep the multipliers as busy; where a panel is single only if it is the last of many there are none beyond.
template <int NV>
constexpr int kHigh = NV == 2 ? FASTVOC_ROWS2 : FASTVOC_ROWS1;
template <int NV>
constexpr int kEvery = kHigh<NV> > 12 ? 12 : kHigh<NV>;

// The functions make<R>() for tiles of R = 1, 2, ... kMost rows; null where R is odd and beyond kAll.
template <int kMost, int kAll = kMost, class Make>
constexpr auto by_height(const Make& make) {
  const auto one = [&]<int R>() -> decltype(make.template operator()<1>()) {
    if constexpr (R <= kAll || R % 2 == 0) return make.template operator()<R>();
    return nullptr;
  };
  return [&]<int... R>(std::integer_sequence<int, R...>) {
    return std::array{one.template operator()<R + 1>()...};
  }(std::make_integer_sequence<int, kMost>{});
}

// Cuts `rows` into tiles of about equal height, since a low one at the end would wait for its weights: use(tile, n) with the
// function for n rows.
template <class Table, class Use>
inline void over_tiles(const Table& table, std::int64_t rows, const Use& use) {
  while (rows > 0) {
    const std::int64_t equal = ceil_div(rows, ceil_div(rows, static_cast<std::int64_t>(table.size())));
    const bool known = table[static_cast<std::size_t>(equal - 1)];
    const std::int64_t n = known ? equal : equal < rows ? equal + 1 : (equal + 1) / 2;
    use(table[static_cast<std::size_t>(n - 1)], n);
    rows -= n;
  }
}

// Cuts the panels [p, last): use(number, p) with one or two as a constant.
template <class Use>
inline void over_panels(int p, int last, const Use& use) {
  if constexpr (FASTVOC_ROWS2 > 0) {
    for (; p + 2 <= last; p += 2) use(std::integral_constant<int, 2>{}, p);
  }
  for (; p < last; ++p) use(std::integral_constant<int, 1>{}, p);
}

// R rows of words. One pointer serves three of them: more would not stay in registers.
template <int R, class D>
struct WordRows {
  typedef typename D::Word Word __attribute__((may_alias));

  const Word* x[(R + 2) / 3];
  std::ptrdiff_t row;

  // `step` words from one another.
  inline __attribute__((always_inline)) WordRows(const void* first, std::ptrdiff_t step) : row(step) {
#pragma GCC unroll 8
    for (int i = 0; i < (R + 2) / 3; ++i) x[i] = static_cast<const Word*>(first) + 3 * i * step;
  }
  // Word c of row r, for every lane.
  inline __attribute__((always_inline)) typename D::Weights operator()(int r, std::ptrdiff_t c) const {
    return D::spread(x[r / 3][(r % 3) * row + c]);
  }
};

// Adds the products of word c of every row by V vectors of weights.
template <class D, int R, int V>
inline __attribute__((always_inline)) void add_products(typename D::Sum (&sum)[R][V], const typename D::Weights (&w)[V],
                                                        const WordRows<R, D>& x, std::ptrdiff_t c) {
#pragma GCC unroll 32
  for (int r = 0; r < R; ++r) {
    const typename D::Weights xv = x(r, c);
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) sum[r][v] = D::add(sum[r][v], w[v], xv);
  }
}

// All rows of V vectors begin with first(v).
template <int R, int V, class Sum, class First>
inline __attribute__((always_inline)) void begin_sums(Sum (&sum)[R][V], const First& first) {
#pragma GCC unroll 8
  for (int v = 0; v < V; ++v) {
    const Sum value = first(v);
#pragma GCC unroll 32
    for (int r = 0; r < R; ++r) sum[r][v] = value;
  }
}

// Writes them, `row` floats from one another.
template <int R, int V>
inline __attribute__((always_inline)) void store_sums(float* y, std::ptrdiff_t row, const Vec (&sum)[R][V]) {
#pragma GCC unroll 32
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) store(y + r * row + v * FASTVOC_WIDTH, sum[r][v]);
  }
}

}  // namespace fastvoc::FASTVOC_ISA
