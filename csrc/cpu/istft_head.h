// istft_head: a vector of frames at a time through exp, sine, cosine and the inverse transform, then summed in order.
#pragma once

#include "bf16.h"
#include "fft.h"
#include "istft_head_args.h"
#include "lanes.h"
#include "trig.h"

namespace fastvoc::FASTVOC_ISA {

// Frames [first, first + count) into lanes: rows[c] holds channel c. Lanes from `count` on are 0.
template <class Element>
void load_lanes(const SourceOf<Element>& source, std::int64_t first, std::int64_t count, Vec* rows) {
  constexpr int width = FASTVOC_WIDTH;
  const Element* x = source.data + first * source.step;
  if (source.step == 1 && count == width) {
    for (int c = 0; c < source.channels; ++c) rows[c] = load(x + c * source.channel);
    return;
  }
  const int whole = source.channel == 1 ? source.channels / width * width : 0;
  for (int c = 0; c < whole; c += width) {
    for (int i = 0; i < width; ++i) rows[c + i] = i < count ? load(x + i * source.step + c) : Vec{};
    transpose(rows + c);
  }
  for (int c = whole; c < source.channels; ++c) {
    Vec v{};
    for (int i = 0; i < count; ++i) v[i] = widen(x[i * source.step + c * source.channel]);
    rows[c] = v;
  }
}

// The bin of a log-magnitude and a phase.
inline __attribute__((always_inline)) Complex bin(const IstftHeadArgs& args, Vec log_magnitude, Vec phase) {
  Vec sine, cosine;
  sincos(phase, sine, cosine);
  if (args.sine) sincos_near(sine, sine, cosine);
  const Vec e = exp(log_magnitude);
  const Vec magnitude = e > args.clip ? broadcast(args.clip) : e;
  return {magnitude * cosine, magnitude * sine};
}

// The samples of a tile's frames, [n_fft] rows of lanes; `rows` holds the channels and is overwritten, as is `other`.
inline Vec* synthesize(const IstftHeadArgs& args, Vec* rows, Vec* other) {
  const int n = args.fft.half();
  const Vec* phase = rows + n + 1;
  auto* z = reinterpret_cast<Complex*>(other);
  const Vec low = bin(args, rows[0], phase[0]).re, high = bin(args, rows[n], phase[n]).re;
  z[0] = {low + high, low - high};
  for (int k = 1; k <= n - k; ++k) {
    const Complex a = bin(args, rows[k], phase[k]);
    join_bins(args.fft, k, a, k == n - k ? a : bin(args, rows[n - k], phase[n - k]), z);
  }
  return reinterpret_cast<Vec*>(fft(args.fft, z, reinterpret_cast<Complex*>(rows)));
}

// Windows a tile's samples and adds its frames, one `hop` after the other, to `sum`: later blocks of samples first, so that
// every sum runs over its frames in their order.
inline void overlap_add(const IstftHeadArgs& args, Vec* samples, std::int64_t count, float* sum) {
  constexpr int width = FASTVOC_WIDTH;
  const int size = args.fft.size;
  const int padded_size = (size + width - 1) / width * width;
  for (int i = size; i < padded_size; ++i) samples[i] = Vec{};
  for (int s = padded_size - width; s >= 0; s -= width) {
    Vec block[width];
    for (int i = 0; i < width; ++i) block[i] = samples[s + i] * (s + i < size ? args.window[s + i] : 0.0f);
    transpose(block);
    for (int i = 0; i < count; ++i) {
      float* to = sum + i * args.hop + s;
      store(to, load(to) + block[i]);
    }
  }
}

// 1 / (sum of the squared windows) at sample `at` of `frames` overlapped frames.
inline float inverse_envelope(const IstftHeadArgs& args, std::int64_t at, std::int64_t frames) {
  double sum = 0.0;
  for (std::int64_t f = at < args.fft.size ? 0 : (at - args.fft.size) / args.hop + 1; f < frames && f * args.hop <= at; ++f) {
    sum += args.squares[at - f * args.hop];
  }
  return static_cast<float>(1.0 / sum);
}

// Divides the sums from sample `at` of the overlapped frames on by the envelope, and clamps them.
inline void finish(const IstftHeadArgs& args, std::int64_t frames, std::int64_t at, const float* sum, std::int64_t count,
                   float* y) {
  constexpr int width = FASTVOC_WIDTH;
  const std::int64_t whole_from = args.fft.size - args.hop, whole_to = frames * args.hop;
  float held[width] = {}, factors[width] = {};
  for (std::int64_t i = 0; i < count; i += width) {
    const int n = static_cast<int>(std::min<std::int64_t>(width, count - i));
    const std::int64_t p = at + i;
    const float* factor = args.inverse + p % args.hop;
    if (p < whole_from || p + n > whole_to) {
      for (int j = 0; j < n; ++j) {
        const bool whole = p + j >= whole_from && p + j < whole_to;
        factors[j] = whole ? args.inverse[(p + j) % args.hop] : inverse_envelope(args, p + j, frames);
      }
      factor = factors;
    }
    Vec v = load(sum + i) * load(factor);
    v = v > args.clamp ? broadcast(args.clamp) : v;
    v = v < -args.clamp ? broadcast(-args.clamp) : v;
    if (n == width) {
      store(y + i, v);
    } else {
      store(held, v);
      std::memcpy(y + i, held, static_cast<std::size_t>(n) * sizeof(float));
    }
  }
}

inline void istft_head(const IstftHeadArgs& args, const AnySource& source, const Sink& sink, std::int64_t begin,
                       std::int64_t end, float* workspace) {
  constexpr int width = FASTVOC_WIDTH;
  const int size = args.fft.size, hop = args.hop;
  Vec* rows = reinterpret_cast<Vec*>(workspace);
  Vec* other = rows + size + 2 + width;
  float* sum = reinterpret_cast<float*>(other + size + 2 + width);
  const std::int64_t capacity = width * hop + size + 2 * width;
  std::fill(sum, sum + capacity, 0.0f);
  // Positions count from the first sample of frame 0, before the trim.
  const std::int64_t from = begin + args.trim, to = end + args.trim;
  const std::int64_t first = from < size ? 0 : (from - size) / hop + 1;
  const std::int64_t last = std::min(source.steps, (to - 1) / hop + 1);
  for (std::int64_t f = first; f < last; f += width) {
    const std::int64_t count = std::min<std::int64_t>(width, last - f);
    source.visit([&](const auto& typed) { load_lanes(typed, f, count, rows); });
    overlap_add(args, synthesize(args, rows, other), count, sum);
    // Complete: what no later frame reaches.
    const std::int64_t base = f * hop, done = f + count < last ? base + count * hop : to;
    const std::int64_t low = std::max(base, from), high = std::min(done, to);
    if (low < high) finish(args, source.steps, low, sum + (low - base), high - low, sink.data + (low - args.trim));
    std::memmove(sum, sum + count * hop, static_cast<std::size_t>(capacity - count * hop) * sizeof(float));
    std::fill(sum + capacity - count * hop, sum + capacity, 0.0f);
  }
}

}  // namespace fastvoc::FASTVOC_ISA
