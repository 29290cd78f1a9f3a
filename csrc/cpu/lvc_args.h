// What the glue hands to lvc.
#pragma once

#include "args.h"

namespace fastvoc {

constexpr std::int64_t kLvcRows = 48;  // output steps whose results stay in the L1 beside a kernel

// One item's kernels and biases by strides, in elements.
template <class Element>
struct LvcKernels {
  const Element* data;
  std::ptrdiff_t tap;
  std::ptrdiff_t in;
  std::ptrdiff_t out;
  std::ptrdiff_t frame;
  const Element* bias;
  std::ptrdiff_t bias_out;
  std::ptrdiff_t bias_frame;
};

struct LvcArgs {
  int taps;
  int cin;
  int cout;
  int hop;
  bool gated;

  int made() const { return gated ? cout / 2 : cout; }
};

// Floats of scratch memory of a task: a frame's kernel and bias, the rows that come in, the sums, what goes out.
inline std::int64_t workspace_floats(const LvcArgs& args) {
  const std::int64_t width = padded(args.cout);
  return (std::int64_t{args.taps} * args.cin + 1) * width + (kLvcRows + args.taps) * args.cin +
         kLvcRows * (width + args.made()) + 2 * kPanelWidth;
}

}  // namespace fastvoc
