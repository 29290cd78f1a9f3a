// What the glue hands to lstm.
#pragma once

#include <sched.h>

#include "args.h"

namespace fastvoc {

// One layer in one direction. Weights are [block of 16 units][input][gate][16], gates in torch's order; bias [block][gate][16].
struct LstmLayer {
  const float* w_ih;
  const float* w_hh;
  const float* bias;
  int inputs;
  int hidden;
  bool reverse;
};

// One item's way through a layer: the output of step t goes to y + t * row, plus `skip` where it has data. `h` and `c`
// [hidden] hold the state before and after, or are null for a beginning of zeros.
struct LstmItem {
  Source x;
  Source skip;
  float* y;
  std::ptrdiff_t row;
  float* h;
  float* c;
};

// Items that share a layer's weights in every step, longest first. `before` counts the steps that the layer before has
// written, `done` those of this one; either may be null.
struct LstmGroup {
  const LstmItem* items;
  int count;
  const std::int64_t* before;
  std::int64_t* done;
};

constexpr int kGates = 4;
constexpr int kLstmBlock = kGates * kPanelWidth;

// Steps whose input projection is computed at once.
inline std::int64_t lstm_chunk(const LstmGroup& group) {
  if (group.before || group.done) return 12;
  return std::clamp<std::int64_t>(96 / group.count, 12, 48);
}

// Floats of scratch memory that a group needs.
inline std::int64_t workspace_floats(const LstmLayer& layer, const LstmGroup& group) {
  const std::int64_t width = padded(layer.hidden), chunk = lstm_chunk(group);
  return group.count * (3 * width + chunk * kGates * width) + chunk * padded(layer.inputs);
}

// Waits until `done` has reached `steps`; its writer runs on another thread or has ended.
inline void await_steps(const std::int64_t* done, std::int64_t steps) {
  for (int spins = 0; __atomic_load_n(done, __ATOMIC_ACQUIRE) < steps; ++spins) {
    if (spins > 256) sched_yield();
  }
}

}  // namespace fastvoc
