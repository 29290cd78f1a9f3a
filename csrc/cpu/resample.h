// resample: sums in float64 that are exact, so that their order is free. Vectors run along the taps; four outputs in a row share
// their inputs, and the same ones of some periods their taps.
#pragma once

#include "math.h"
#include "resample_args.h"

namespace fastvoc::FASTVOC_ISA {

constexpr int kDoubles = FASTVOC_WIDTH / 2;
constexpr int kResamplePeriods = FASTVOC_ROWS1 >= 24 ? 6 : 3;

typedef double Doubles __attribute__((vector_size(kDoubles * sizeof(double))));
typedef double DoublesAt __attribute__((vector_size(kDoubles * sizeof(double)), aligned(sizeof(double))));
typedef std::int64_t Longs __attribute__((vector_size(kDoubles * sizeof(std::int64_t))));
typedef float FloatsAt __attribute__((vector_size(kDoubles * sizeof(float)), aligned(sizeof(float))));

inline __attribute__((always_inline)) Doubles doubles_of(const float* p) {
#if defined(__AVX512F__) && FASTVOC_WIDTH == 16
  return _mm512_cvtps_pd(_mm256_loadu_ps(p));
#elif defined(__AVX__) && FASTVOC_WIDTH == 8
  return _mm256_cvtps_pd(_mm_loadu_ps(p));  // of which GCC 12 makes more than one instruction by itself
#else
  return __builtin_convertvector(*reinterpret_cast<const FloatsAt*>(p), Doubles);
#endif
}

template <class F, std::int64_t... L>
inline __attribute__((always_inline)) Doubles shuffle_doubles(Doubles a, Doubles b, F,
                                                              std::integer_sequence<std::int64_t, L...>) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, F{}(L)...);
#else
  return __builtin_shuffle(a, b, Longs{F{}(L)...});
#endif
}

// Lane by lane the sums of neighbouring blocks of `H` lanes, those of a in the even blocks and of b in the odd ones.
template <int H>
inline __attribute__((always_inline)) Doubles fold(Doubles a, Doubles b) {
  constexpr auto low = [](std::int64_t lane) { return lane & H ? lane - H + kDoubles : lane; };
  constexpr auto high = [](std::int64_t lane) { return lane & H ? lane + kDoubles : lane + H; };
  using Numbers = std::make_integer_sequence<std::int64_t, kDoubles>;
  return shuffle_doubles(a, b, low, Numbers{}) + shuffle_doubles(a, b, high, Numbers{});
}

// The sums of the lanes of four vectors.
inline __attribute__((always_inline)) void lane_sums(const Doubles* v, float* sums) {
  const Doubles a = fold<1>(v[0], v[1]), b = fold<1>(v[2], v[3]);
  if constexpr (kDoubles == 2) {
    for (int i = 0; i < 2; ++i) {
      sums[i] = static_cast<float>(a[i]);
      sums[2 + i] = static_cast<float>(b[i]);
    }
  } else {
    Doubles all = fold<2>(a, b);
    if constexpr (kDoubles == 8) all = fold<4>(all, all);
    for (int i = 0; i < 4; ++i) sums[i] = static_cast<float>(all[i]);
  }
}

// Four outputs of each of R periods, whose inputs begin `step` apart: sums[r][i].
template <int R>
inline __attribute__((noinline)) void resample_tile(const float* const* taps, const double* x, std::int64_t step,
                                                    std::int64_t count, float (*sums)[4]) {
  Doubles acc[R][kResamplePhases] = {};
  const float *a = taps[0], *b = taps[1], *c = taps[2], *d = taps[3];
  for (std::int64_t k = 0; k < count; k += kDoubles) {
    Doubles v[R];
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) v[r] = *reinterpret_cast<const DoublesAt*>(x + r * step + k);
    const float* const rows[] = {a, b, c, d};
#pragma GCC unroll 4
    for (int i = 0; i < kResamplePhases; ++i) {
      const Doubles t = doubles_of(rows[i] + k);
#pragma GCC unroll 6
      for (int r = 0; r < R; ++r) acc[r][i] += t * v[r];
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) lane_sums(acc[r], sums[r]);
}

inline void resample_rows(int periods, const float* const* taps, const double* x, std::int64_t step, std::int64_t count,
                          float (*sums)[4]) {
  if (periods == kResamplePeriods) return resample_tile<kResamplePeriods>(taps, x, step, count, sums);
  for (; periods >= 2; periods -= 2, x += 2 * step, sums += 2) resample_tile<2>(taps, x, step, count, sums);
  if (periods) resample_tile<1>(taps, x, step, count, sums);
}

// `count` samples as whole units of 2^-24, to whole vectors; adds to `wrong` where one is NaN.
inline void to_units(const float* in, std::int64_t count, double* out, Longs& wrong) {
  constexpr double limit = 8.0, round = 0x1.8p28;  // fastvoc/ops/resample.py has the limit, too; the last bit of 2^28 is a unit
  const auto vector = [&](const float* from, double* to) __attribute__((always_inline)) {
    Doubles v = doubles_of(from);
    wrong |= v != v;
    v = v > limit ? Doubles{} + limit : v;
    v = v < -limit ? Doubles{} - limit : v;
    *reinterpret_cast<DoublesAt*>(to) = (v + round) - round;
  };
  std::int64_t i = 0;
  for (; i + kDoubles <= count; i += kDoubles) vector(in + i, out + i);
  if (i == count) return;
  float rest[kDoubles] = {};
  std::copy(in + i, in + count, rest);
  vector(rest, out + i);
}

// Inputs [from, from + count) of a source in units; whether none is NaN.
inline bool load_units(const ResampleSource& source, std::int64_t from, std::int64_t count, double* x) {
  const std::int64_t last = from + count, have = source.held + source.given;
  const std::int64_t kept = std::clamp(source.held, from, last), valid = std::clamp(have, from, last);
  Longs wrong{};
  if (kept > from) to_units(source.tail + from, kept - from, x, wrong);
  if (valid > kept) to_units(source.chunk + (kept - source.held), valid - kept, x + (kept - from), wrong);
  std::fill(x + (valid - from), x + count, 0.0);
  std::int64_t any = 0;
  for (int i = 0; i < kDoubles; ++i) any |= wrong[i];
  return !any;
}

// Output by output, so that a NaN reaches no sum but its own.
inline void resample_singly(const ResampleArgs& args, std::int64_t n, std::int64_t count, const double* x, float* y) {
  const std::int64_t begin = args.first(n);
  for (std::int64_t i = 0; i < count; ++i) {
    const float* taps = args.taps + (args.phase + n + i) % args.up * args.row() + args.lead();
    const double* in = x + (args.first(n + i) - begin);
    double sum = 0.0;
    for (std::int64_t k = 0; k < args.width(); ++k) sum += in[k] * static_cast<double>(taps[k]);
    y[i] = static_cast<float>(sum);
  }
}

// Outputs [n, n + count) of inputs that begin with the first one's.
inline void resample_range(const ResampleArgs& args, std::int64_t n, std::int64_t count, const double* x, float* y) {
  const std::int64_t period = args.period(), step = args.step(), row = args.row(), lead = args.lead();
  const std::int64_t whole = args.down / args.up, part = args.down % args.up;
  std::int64_t at = 0, rest = (args.phase + n) * args.down % args.up, phase = (args.phase + n) % args.up;
  for (std::int64_t q = 0; q < std::min(period, count); q += kResamplePhases) {
    const float* taps[kResamplePhases];
    const std::int64_t first = at;
    std::int64_t shift = 0;
    for (int i = 0; i < kResamplePhases; ++i) {
      shift = at - first;
      taps[i] = args.taps + phase * row + lead - shift;
      at += whole + (rest + part >= args.up);
      rest += rest + part >= args.up ? part - args.up : part;
      phase = phase + 1 == args.up ? 0 : phase + 1;
    }
    const std::int64_t width = args.width() + shift, periods = ceil_div(count - q, period);
    for (std::int64_t p = 0; p < periods; p += kResamplePeriods) {
      const int rows = static_cast<int>(std::min<std::int64_t>(kResamplePeriods, periods - p));
      float sums[kResamplePeriods][kResamplePhases];
      resample_rows(rows, taps, x + first + p * step, step, width, sums);
      for (int r = 0; r < rows; ++r) {
        const std::int64_t m = q + (p + r) * period;
        std::copy_n(sums[r], std::min<std::int64_t>(kResamplePhases, count - m), y + m);
      }
    }
  }
}

// round(32767 y), clipped at full scale, NaN as 0, of a vector; adds -1 to `within` where it is not beyond.
inline __attribute__((always_inline)) void to_s16(const float* y, std::int16_t* whole, IntVec& within) {
  typedef std::int16_t Shorts __attribute__((vector_size(FASTVOC_WIDTH * sizeof(std::int16_t)), aligned(sizeof(std::int16_t))));
  constexpr float full = 32767.0f, round = 0x1.8p23f;
  const Vec x = load(y);
  Vec v = x * full;
  within += (x <= 1.0f) & (x >= -1.0f);
  v = v > full ? broadcast(full) : v;
  v = v < -full ? broadcast(-full) : v;
  v = v == v ? v : Vec{};
  *reinterpret_cast<Shorts*>(whole) = __builtin_convertvector((IntVec)(v + round), Shorts);  // the lower half has the number
}

// The same of a row; how many were clipped.
inline std::int64_t row_to_s16(const float* y, std::int64_t count, std::int16_t* whole) {
  IntVec within{};
  std::int64_t i = 0, inside = 0;
  for (; i + FASTVOC_WIDTH <= count; i += FASTVOC_WIDTH) to_s16(y + i, whole + i, within);
  if (i < count) {
    float rest[FASTVOC_WIDTH];
    std::int16_t last[FASTVOC_WIDTH];
    std::fill(std::copy(y + i, y + count, rest), rest + FASTVOC_WIDTH, 2.0f);  // not within
    to_s16(rest, last, within);
    std::copy_n(last, count - i, whole + i);
  }
  for (int lane = 0; lane < FASTVOC_WIDTH; ++lane) inside -= within[lane];
  return count - inside;
}

// Outputs [begin, end).
inline void resample(const ResampleArgs& args, const ResampleSource& source, const ResampleSink& sink, std::int64_t begin,
                     std::int64_t end, float* workspace) {
  const std::int64_t strip = resample_strip(args, end - begin);
  auto* x = reinterpret_cast<double*>(workspace);
  float* made = workspace + 2 * (resample_inputs(args, strip) + kPanelWidth);
  std::int64_t clipped = 0;
  for (std::int64_t n = begin; n < end; n += strip) {
    const std::int64_t count = std::min(strip, end - n);
    float* y = sink.whole ? made : sink.floats + n;
    if (load_units(source, args.first(n), resample_inputs(args, count), x)) {
      resample_range(args, n, count, x, y);
    } else {
      resample_singly(args, n, count, x, y);
    }
    if (sink.whole) clipped += row_to_s16(y, count, sink.whole + n);
  }
  if (clipped) __atomic_fetch_add(sink.clipped, clipped, __ATOMIC_RELAXED);
}

}  // namespace fastvoc::FASTVOC_ISA
