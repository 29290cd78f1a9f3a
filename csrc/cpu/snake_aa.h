// snake_aa: snake at twice the rate, strip by strip. Rows of channels lie one after the other without padding, so that a
// filter over time is a sum of shifted vectors whatever the number of channels.
#pragma once

#include "bf16.h"
#include "math.h"
#include "snake_aa_args.h"

namespace fastvoc::FASTVOC_ISA {

// Dense rows [t][channels]: the steps [first, end).
struct AaRows {
  float* data;
  std::int64_t first;
  std::int64_t end;
};

// Reads the steps [rows.first, rows.end) of `channels` channels from `channel` on; steps off the ends repeat the last one.
template <class Element>
void aa_load(const SourceOf<Element>& source, int channel, int channels, const AaRows& rows) {
  const Element* x = source.data + channel * source.channel;
  float* y = rows.data;
  for (std::int64_t t = rows.first; t < rows.end; ++t, y += channels) {
    const Element* row = x + std::clamp<std::int64_t>(t, 0, source.steps - 1) * source.step;
    if (source.channel == 1) {
      widen_row(row, y, channels);
    } else {
      for (int c = 0; c < channels; ++c) y[c] = widen(row[c * source.channel]);
    }
  }
}

// The doubled signal after its snake: even samples 2t and odd ones 2t + 1 of the steps t that lie kAaReach inside `x`.
inline void aa_up(const SnakeAaArgs& args, const float* alpha, const float* inverse, int channels, const float* x,
                  std::int64_t steps, float* even, float* odd) {
  float taps[kAaTaps];
  for (int k = 0; k < kAaTaps; ++k) taps[k] = 2.0f * args.taps[k];
  const int turn = FASTVOC_WIDTH % channels;
  int phase = 0;
  const std::int64_t count = steps * channels;
  for (std::int64_t i = 0; i < count; i += FASTVOC_WIDTH) {
    Vec e{}, o{};
    for (int j = 0; j <= 2 * kAaReach; ++j) {
      const Vec v = load(x + i + j * channels);
      if (j < 2 * kAaReach) e += v * taps[kAaTaps - 1 - 2 * j];
      if (j > 0) o += v * taps[kAaTaps - 2 * j];
    }
    const Vec a = load(alpha + phase), b = load(inverse + phase);
    store(even + i, e + b * sin_squared(a * e));
    store(odd + i, o + b * sin_squared(a * o));
    phase += turn;
    if (phase >= channels) phase -= channels;
  }
}

// The halved signal: step t is the sum of the twelve samples from the odd one of t - 3 to the even one of t + 3.
inline void aa_down(const SnakeAaArgs& args, int channels, const float* even, const float* odd, std::int64_t steps,
                    float* y) {
  const std::int64_t count = steps * channels;
  for (std::int64_t i = 0; i < count; i += FASTVOC_WIDTH) {
    Vec sum{};
    for (int k = 0; k < kAaTaps / 2; ++k) {
      sum += load(odd + i + k * channels) * args.taps[2 * k];
      sum += load(even + i + (k + 1) * channels) * args.taps[2 * k + 1];
    }
    store(y + i, sum);
  }
}

// One block of channels: output steps [begin, end).
template <class Element>
void aa_block(const SnakeAaArgs& args, const float* alpha, const float* inverse, int channel, int channels,
              const SourceOf<Element>& source, const SinkOf<Element>& sink, std::int64_t begin, std::int64_t end,
              float* workspace) {
  const std::int64_t strip = aa_strip(args.channels, end - begin);
  float* x = workspace;
  float* even = x + (strip + 4 * kAaReach) * channels + kPanelWidth;
  float* odd = even + (strip + 2 * kAaReach) * channels + kPanelWidth;
  float* y = odd + (strip + 2 * kAaReach) * channels + kPanelWidth;
  const std::size_t row = static_cast<std::size_t>(channels) * sizeof(float);
  for (std::int64_t t = begin; t < end; t += strip) {
    const std::int64_t count = std::min(strip, end - t);
    aa_load(source, channel, channels, {x, t - 2 * kAaReach, t + count + 2 * kAaReach});
    aa_up(args, alpha, inverse, channels, x, count + 2 * kAaReach, even, odd);
    // Beyond an end of the item the doubled signal repeats its own last sample.
    const std::int64_t first = t - kAaReach, last = t + count + kAaReach;
    for (std::int64_t s = first; s < 0; ++s) {
      const float* edge = even - first * channels;
      std::memcpy(even + (s - first) * channels, edge, row);
      std::memcpy(odd + (s - first) * channels, edge, row);
    }
    for (std::int64_t s = source.steps; s < last; ++s) {
      const float* edge = odd + (source.steps - 1 - first) * channels;
      std::memcpy(even + (s - first) * channels, edge, row);
      std::memcpy(odd + (s - first) * channels, edge, row);
    }
    aa_down(args, channels, even, odd, count, y);
    Element* out = sink.data + t * sink.channels + channel;
    if (channels == sink.channels) {
      narrow_row(y, out, count * channels);
    } else {
      for (std::int64_t i = 0; i < count; ++i) narrow_row(y + i * channels, out + i * sink.channels, channels);
    }
  }
}

template <class Element>
void snake_aa(const SnakeAaArgs& args, const SourceOf<Element>& source, const SinkOf<Element>& sink, std::int64_t begin,
              std::int64_t end, float* workspace) {
  // A block in the middle is followed by the next channels, not by its own first ones: its tables are made here.
  float* alpha = workspace;
  float* inverse = alpha + kAaBlock + kPanelWidth;
  float* memory = inverse + kAaBlock + kPanelWidth;
  for (int c = 0; c < args.channels; c += kAaBlock) {
    const int channels = std::min(kAaBlock, args.channels - c);
    for (int i = 0; i < channels + kPanelWidth; ++i) {
      alpha[i] = args.alpha[c + i % channels];
      inverse[i] = args.inverse[c + i % channels];
    }
    aa_block(args, alpha, inverse, c, channels, source, sink, begin, end, memory);
  }
}

}  // namespace fastvoc::FASTVOC_ISA
