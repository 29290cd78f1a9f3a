// What the glue hands to lstm.
#pragma once

#include <type_traits>

#include "args.h"

namespace fastvoc {

constexpr int kGates = 4;
constexpr int kLstmBlock = kGates * kPanelWidth;

// One layer in one direction. Weights are [block of 16 units][input / n][gate][16][n], with n inputs to a multiplication and
// gates in torch's order; bias [block][gate][16].
template <class Element>
struct LstmLayer {
  const Element* w_ih;
  const Element* w_hh;
  const float* bias;
  int inputs;
  int hidden;
  bool reverse;
};

// One item's way through a layer: the output of step t goes to y + t * row, plus `skip` where it has data. `h` and `c`
// [hidden] hold the state before and after, or are null for a beginning of zeros.
template <class Element>
struct LstmItem {
  SourceOf<Element> x;
  SourceOf<Element> skip;
  Element* y;
  std::ptrdiff_t row;
  float* h;
  float* c;
};

// Items that share a layer's weights in every step, longest first. `before` counts the steps that the layer before has
// written, `done` those of this one; either may be null.
template <class Element>
struct LstmGroup {
  const LstmItem<Element>* items;
  int count;
  const std::int64_t* before;
  std::int64_t* done;
};

// Steps whose input projection is computed at once. A layer waits for so many steps of the one before, so that they are few
// where there are few in all.
template <class Element>
std::int64_t lstm_chunk(const LstmGroup<Element>& group) {
  if (group.before || group.done) return std::clamp<std::int64_t>(ceil_div(group.items[0].x.steps, 8), 3, 12);
  return std::clamp<std::int64_t>(96 / group.count, 12, 48);
}

// The same for a crew.
template <class Element>
std::int64_t lstm_crew_chunk(const LstmGroup<Element>& group) {
  return std::clamp<std::int64_t>(group.items[0].x.steps, 1, std::clamp<std::int64_t>(192 / group.count, 24, 96));
}

// Floats of scratch memory that a group needs for so many steps at once.
template <class Element>
std::int64_t workspace_floats(const LstmLayer<Element>& layer, const LstmGroup<Element>& group, std::int64_t chunk) {
  const std::int64_t width = padded(layer.hidden);
  return group.count * (4 * width + chunk * (kGates * width + padded(layer.inputs)));
}

template <class Element>
std::int64_t workspace_floats(const LstmLayer<Element>& layer, const LstmGroup<Element>& group) {
  return workspace_floats(layer, group, lstm_chunk(group));
}

}  // namespace fastvoc
