// What the glue hands to stft.
#pragma once

#include "fft_args.h"

namespace fastvoc {

struct StftArgs {
  RealFft fft;
  int hop;
  int left;             // samples before the first that frame 0 covers
  bool reflect;         // what lies beside the signal, instead of zeros
  bool polar;
  bool first_is_real;   // the first frame is symmetric, so that its bins are real
  const float* window;  // [n_fft + kPanelWidth], halved, zeros beyond n_fft
};

// Floats of scratch memory: the samples of a tile, two buffers of its transforms.
inline std::int64_t workspace_floats(const StftArgs& args) {
  const std::int64_t rows = args.fft.size + 2 + kPanelWidth;
  return (2 * rows + args.hop) * kPanelWidth + args.fft.size + 2 * kPanelWidth;
}

}  // namespace fastvoc
