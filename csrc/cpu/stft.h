// stft: a vector of frames at a time through window and transform.
#pragma once

#include "fft.h"
#include "lanes.h"
#include "stft_args.h"
#include "trig.h"

namespace fastvoc::FASTVOC_ISA {

// Samples [first, first + count) of an item, reflected at its ends or between zeros.
inline void load_samples(const Source& source, std::int64_t first, std::int64_t count, bool reflect, float* y) {
  const std::int64_t last = first + count;
  std::int64_t t = first;
  for (; t < std::min<std::int64_t>(last, 0); ++t) *y++ = reflect ? source.data[-t * source.step] : 0.0f;
  const std::int64_t inside = std::min(last, source.steps);
  if (source.step == 1 && t < inside) {
    std::memcpy(y, source.data + t, static_cast<std::size_t>(inside - t) * sizeof(float));
    y += inside - t;
    t = inside;
  }
  for (; t < inside; ++t) *y++ = source.data[t * source.step];
  for (; t < last; ++t) *y++ = reflect ? source.data[(2 * (source.steps - 1) - t) * source.step] : 0.0f;
}

// The spectrum's bins of a tile of frames that begin `hop` samples apart in `x`: [2 * bins] rows of lanes, all real parts, then
// all imaginary parts, in one of the two buffers.
inline Vec* analyze(const StftArgs& args, const float* x, std::int64_t count, Vec* rows, Vec* other) {
  constexpr int width = FASTVOC_WIDTH;
  const int size = args.fft.size, n = args.fft.half();
  for (int s = 0; s < size; s += width) {
    const Vec window = load(args.window + s);
    for (int i = 0; i < width; ++i) rows[s + i] = i < count ? load(x + i * args.hop + s) * window : Vec{};
    transpose(rows + s);
  }
  // Real and imaginary parts change places around the inverse transform, which makes it the forward one.
  auto* z = reinterpret_cast<Complex*>(rows);
  for (int i = 0; i < n; ++i) std::swap(z[i].re, z[i].im);
  z = fft(args.fft, z, reinterpret_cast<Complex*>(other));
  Vec* out = reinterpret_cast<Vec*>(z) == rows ? other : rows;
  Vec* imaginary = out + n + 1;
  out[0] = (z[0].im + z[0].re) * 2.0f;
  out[n] = (z[0].im - z[0].re) * 2.0f;
  imaginary[0] = imaginary[n] = Vec{};
  for (int k = 1; k <= n - k; ++k) {
    Complex low, high;
    split_bins(args.fft, k, {z[k].im, z[k].re}, {z[n - k].im, z[n - k].re}, low, high);
    out[k] = low.re;
    imaginary[k] = low.im;
    out[n - k] = high.re;
    imaginary[n - k] = high.im;
  }
  return out;
}

// Bins to magnitude and angle; lane 0 is real when `real` is set.
inline void to_polar(const StftArgs& args, Vec* bins, bool real) {
  const int n = args.fft.half();
  for (int k = 0; k <= n; ++k) {
    const Vec x = bins[k], y = bins[n + 1 + k];
    Vec a = y == 0.0f ? real_angle(x) : angle(y, x);
    if (real) a[0] = real_angle(x)[0];
    bins[k] = square_root(x * x + y * y);
    bins[n + 1 + k] = a;
  }
}

// Writes rows of lanes as `count` time-major steps of the output. A vector may run over into the next steps: the last block of
// channels goes first, so that they are written after it.
inline void store_lanes(const Sink& sink, std::int64_t t, std::int64_t count, Vec* rows) {
  constexpr int width = FASTVOC_WIDTH;
  float* y = sink.data + t * sink.channels;
  for (int c = (sink.channels - 1) / width * width; c >= 0; c -= width) {
    transpose(rows + c);
    for (std::int64_t i = 0; i < count; ++i) {
      const std::int64_t at = i * sink.channels + c;
      if (at + width <= count * sink.channels) {
        store(y + at, rows[c + i]);
      } else {
        std::memcpy(y + at, &rows[c + i], static_cast<std::size_t>(std::min(width, sink.channels - c)) * sizeof(float));
      }
    }
  }
}

inline void stft(const StftArgs& args, const Source& source, const Sink& sink, std::int64_t begin, std::int64_t end,
                 float* workspace) {
  constexpr int width = FASTVOC_WIDTH;
  const int size = args.fft.size;
  Vec* rows = reinterpret_cast<Vec*>(workspace);
  Vec* other = rows + size + 2 + width;
  float* samples = reinterpret_cast<float*>(other + size + 2 + width);
  std::fill(samples, samples + width * args.hop + size + 2 * width, 0.0f);
  for (std::int64_t t = begin; t < end; t += width) {
    const std::int64_t count = std::min<std::int64_t>(width, end - t);
    load_samples(source, t * args.hop - args.left, (count - 1) * args.hop + size, args.reflect, samples);
    Vec* bins = analyze(args, samples, count, rows, other);
    if (args.polar) to_polar(args, bins, args.first_is_real && t == 0);
    store_lanes(sink, t, count, bins);
  }
}

}  // namespace fastvoc::FASTVOC_ISA
