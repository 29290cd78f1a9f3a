// What the glue hands to istft_head.
#pragma once

#include "fft_args.h"

namespace fastvoc {

struct IstftHeadArgs {
  RealFft fft;
  int hop;
  int trim;               // samples cut off before the first output
  bool sine;              // the phase is the sine of its rows
  float clip;             // largest magnitude
  float clamp;            // largest sample
  const float* window;    // [n_fft], divided by n_fft
  const float* squares;   // [n_fft] of the window
  const float* inverse;   // [hop + kPanelWidth], periodic: 1 / envelope where all windows overlap
};

// Floats of scratch memory: two buffers of a tile's transforms, the sum of its frames.
inline std::int64_t workspace_floats(const IstftHeadArgs& args) {
  const std::int64_t rows = args.fft.size + 2 + kPanelWidth;
  return (2 * rows + args.hop) * kPanelWidth + args.fft.size + 2 * kPanelWidth;
}

}  // namespace fastvoc
