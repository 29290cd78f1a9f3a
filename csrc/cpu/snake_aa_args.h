// What the glue hands to snake_aa.
#pragma once

#include "args.h"

namespace fastvoc {

constexpr int kAaTaps = 12;
constexpr int kAaReach = 3;  // steps to either side that an interpolation, and again a decimation, reads
constexpr int kAaBlock = 64;  // channels that go along the time axis together

struct SnakeAaArgs {
  const float* alpha;
  const float* inverse;
  const float* taps;
  int channels;
};

inline std::int64_t aa_strip(int channels, std::int64_t longest) {
  const std::int64_t steps = std::max<std::int64_t>(12288 / std::min(channels, kAaBlock), 24);
  return std::min(steps, longest);
}

// Floats of scratch memory for one strip: what comes in, the two phases between, what goes out.
inline std::int64_t aa_floats(int channels, std::int64_t steps) {
  return (4 * steps + 8 * kAaReach) * channels + 4 * kPanelWidth;
}

// Floats of scratch memory that a task of up to `steps` output steps needs.
inline std::int64_t workspace_floats(const SnakeAaArgs& args, std::int64_t steps) {
  return aa_floats(std::min(args.channels, kAaBlock), aa_strip(args.channels, steps)) + 2 * (kAaBlock + kPanelWidth);
}

}  // namespace fastvoc
