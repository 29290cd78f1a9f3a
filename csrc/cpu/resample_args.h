// What the glue hands to resample.
#pragma once

#include <numeric>

#include "args.h"

namespace fastvoc {

constexpr int kResamplePhases = 4;  // outputs in a row whose taps run together

// Between `up` outputs lie `down` inputs; output n of a signal reads 2 * reach inputs from the whole part of n * down / up on.
struct ResampleArgs {
  const float* taps;  // [up][row]: of output n modulo up, between zeros
  int up;
  int down;
  int reach;
  std::int64_t phase;  // of the signal's outputs that of the first

  std::int64_t width() const { return 2 * std::int64_t{reach}; }
  // Zeros before the taps: outputs that run together read from the first one's inputs on.
  std::int64_t lead() const { return ceil_div(std::int64_t{kResamplePhases - 1} * down, up); }
  std::int64_t row() const { return width() + 2 * lead() + kPanelWidth; }
  // The first input of output n, from the first one's on.
  std::int64_t first(std::int64_t n) const { return (phase + n) * down / up - phase * down / up; }
  // Outputs after which the same taps come again, whole fours of them where they are few, and the inputs between them.
  std::int64_t period() const { return up < 64 ? std::int64_t{up} * kResamplePhases / std::gcd(up, kResamplePhases) : up; }
  std::int64_t step() const { return period() / up * down; }
};

// The inputs of one signal: what was kept of it, then a chunk, then silence.
struct ResampleSource {
  const float* tail;
  std::int64_t held;
  const float* chunk;
  std::int64_t given;
};

// Where its outputs go: as floats, or as s16, of which `clipped` counts those beyond full scale.
struct ResampleSink {
  float* floats;
  std::int16_t* whole;
  std::int64_t* clipped;
};

constexpr std::int64_t kResampleInputs = 6144;  // of a strip, about

// Outputs that run together: sixes of periods, which fill the tiles, or of a long one a part.
inline std::int64_t resample_strip(const ResampleArgs& args, std::int64_t outputs) {
  const std::int64_t periods = kResampleInputs / args.step() / 6 * 6;
  const std::int64_t strip =
      periods ? periods * args.period() : std::max<std::int64_t>(kResampleInputs * args.up / args.down, kResamplePhases);
  return std::min(strip, outputs);
}

// Inputs that `outputs` of them read, those behind the last one included that are multiplied by zeros.
inline std::int64_t resample_inputs(const ResampleArgs& args, std::int64_t outputs) {
  return ceil_div(outputs * args.down, args.up) + args.width() + args.lead() + kPanelWidth;
}

// Floats of scratch memory that a range of up to `outputs` needs.
inline std::int64_t workspace_floats(const ResampleArgs& args, std::int64_t outputs) {
  const std::int64_t strip = resample_strip(args, outputs);
  return 2 * (resample_inputs(args, strip) + kPanelWidth) + strip;
}

}  // namespace fastvoc
