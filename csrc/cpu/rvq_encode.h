// rvq_encode: the nearest entry of each codebook in turn, by the register tile of the convolutions.
#pragma once

#include "math.h"
#include "rvq_args.h"
#include "strip.h"
#include "tile.h"

namespace fastvoc::FASTVOC_ISA {

// The nearest entry of each row so far: lane by lane the distance and the entry's number, less the lane.
struct Nearest {
  float* distance;
  std::int32_t* entry;
};

// Compares R rows with NV panels from entry `first` on. The distance is summed as |x|^2 - 2 x.e + |e|^2, from left to right,
// and an entry replaces one of a lower number only when it is nearer.
template <int R, int NV>
__attribute__((noinline)) void nearest_tile(const TileInput& in, const float* row_squares, const float* entry_squares,
                                            int first, const Nearest& nearest) {
  Vec dot[R][NV * kVecs];
  accumulate<R, NV>(in, dot);
#pragma GCC unroll 32
  for (int r = 0; r < R; ++r) {
    const Vec square = broadcast(row_squares[r]);
    float* distance = nearest.distance + r * kPanel;
    std::int32_t* entry = nearest.entry + r * kPanel;
    Vec best = load(distance);
    IntVec index;
    std::memcpy(&index, entry, sizeof index);
#pragma GCC unroll 8
    for (int v = 0; v < NV * kVecs; ++v) {
      const Vec d = (square - 2.0f * dot[r][v]) + load(entry_squares + v * FASTVOC_WIDTH);
      const IntVec nearer = d < best;
      best = nearer ? d : best;
      index = nearer ? IntVec{} + (first + v * FASTVOC_WIDTH) : index;
    }
    store(distance, best);
    std::memcpy(entry, &index, sizeof index);
  }
}

template <int NV>
void nearest_rows(TileInput in, const float* row_squares, const float* entry_squares, int first, Nearest nearest,
                  std::int64_t rows) {
  static constexpr auto table = by_height<kEvery<NV>, 6>([]<int R>() { return &nearest_tile<R, NV>; });
  over_tiles(table, rows, [&](auto run, std::int64_t n) {
    run(in, row_squares, entry_squares, first, nearest);
    in.x += n * in.row;
    row_squares += n;
    nearest.distance += n * kPanel;
    nearest.entry += n * kPanel;
  });
}

// |x|^2, rounded once.
inline float squared_norm(const float* x, int channels) {
  double sums[4] = {};
  int c = 0;
  for (; c + 4 <= channels; c += 4) {
    for (int i = 0; i < 4; ++i) sums[i] += static_cast<double>(x[c + i]) * x[c + i];
  }
  for (; c < channels; ++c) sums[0] += static_cast<double>(x[c]) * x[c];
  return static_cast<float>((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

// Finds the nearest entry of the panels [p, last) of book k for `count` rows.
inline void search(const RvqArgs& args, int k, int p, int last, const float* rows, std::int64_t count, const float* squares,
                   const Nearest& nearest) {
  static constexpr float zeros[2 * kPanel] = {};
  const int width = padded(args.channels), panels = padded(args.entries) / kPanel;
  const std::ptrdiff_t panel = static_cast<std::ptrdiff_t>(args.channels) * kPanel;
  const TileInput in{rows, width, 0, args.panels + std::ptrdiff_t{k} * panels * panel, panel, zeros, 1, args.channels};
  const float* entry_squares = args.squares + static_cast<std::ptrdiff_t>(k) * panels * kPanel;
  over_panels(p, last, [&](auto number, int at) {
    TileInput from = in;
    from.w += at * panel;
    nearest_rows<decltype(number)::value>(from, squares, entry_squares + at * kPanel, at * kPanel, nearest, count);
  });
}

// The nearest of the lanes of row i in all parts, each `part` values from the next; the lowest number wins a tie.
inline int best_lane(const Nearest& nearest, std::int64_t i, int parts, std::ptrdiff_t part) {
  int best = nearest.entry[i * kPanel];
  float least = nearest.distance[i * kPanel];
  for (int n = 0; n < parts; ++n) {
    const std::ptrdiff_t at = n * part + i * kPanel;
    for (int lane = 0; lane < FASTVOC_WIDTH; ++lane) {
      const float distance = nearest.distance[at + lane];
      const int number = nearest.entry[at + lane] + lane;
      if (distance < least || (distance == least && number < best)) {
        least = distance;
        best = number;
      }
    }
  }
  return best;
}

inline void rvq_encode(const RvqArgs& args, const Source& source, const Codes<std::int64_t>& codes, std::int64_t begin,
                       std::int64_t end, float* workspace) {
  const int width = padded(args.channels);
  const std::int64_t strip = rvq_strip(args, end - begin);
  float* rows = workspace;
  float* distance = rows + strip * width;
  const int panels = padded(args.entries) / kPanel, parts = args.parts();
  const std::ptrdiff_t part = strip * kPanel;
  const Nearest nearest{distance, reinterpret_cast<std::int32_t*>(distance + parts * part)};
  float* squares = distance + 2 * parts * part;
  for (std::int64_t t = begin; t < end; t += strip) {
    const std::int64_t count = std::min(strip, end - t);
    load_rows(source, t, t + count, nullptr, rows, Act{});
    for (int k = 0; k < args.count; ++k) {
      for (std::int64_t i = 0; i < count; ++i) squares[i] = squared_norm(rows + i * width, args.channels);
      std::fill_n(nearest.distance, parts * part, __builtin_inff());
      std::fill_n(nearest.entry, parts * part, 0);
      share_panels(args.team, panels, [&](int first, int last, int n) {
        search(args, k, first, last, rows, count, squares, {nearest.distance + n * part, nearest.entry + n * part});
      });
      const float* book = args.books + static_cast<std::ptrdiff_t>(k) * args.entries * args.channels;
      for (std::int64_t i = 0; i < count; ++i) {
        const int code = best_lane(nearest, i, parts, part);
        codes.data[(t + i) * codes.step + k * codes.book] = code;
        const float* entry = book + static_cast<std::ptrdiff_t>(code) * args.channels;
        for (int c = 0; c < args.channels; ++c) rows[i * width + c] -= entry[c];
      }
    }
  }
}

}  // namespace fastvoc::FASTVOC_ISA
