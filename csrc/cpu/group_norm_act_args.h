// What the glue hands to group_norm_act.
#pragma once

#include <cmath>

#include "args.h"

namespace fastvoc {

// weight and bias of each channel, padded to whole panels.
struct GroupNormArgs {
  const float* weight;
  const float* bias;
  int channels;
  Act act;
};

// Of some of an item's values: how many, their mean, and the sum of squared distances from it.
struct Moments {
  double count;
  double mean;
  double squares;
};

// Of two sets together (Chan et al. 1979).
inline Moments together(const Moments& a, const Moments& b) {
  if (a.count == 0.0) return b;
  const double count = a.count + b.count, distance = b.mean - a.mean, share = b.count / count;
  return {count, a.mean + distance * share, a.squares + b.squares + distance * distance * a.count * share};
}

inline double norm_deviation(const Moments& item, double eps) { return std::sqrt(item.squares / item.count + eps); }

// Steps whose moments are taken at once: they depend on the channels alone, so that the sums run in one order always.
inline std::int64_t moment_steps(const GroupNormArgs& args) { return strip_steps(padded(args.channels), kStripBytes); }

// Floats of scratch memory that a task needs.
inline std::int64_t workspace_floats(const GroupNormArgs& args) { return 3 * moment_steps(args) * padded(args.channels); }

}  // namespace fastvoc
