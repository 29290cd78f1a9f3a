// What the glue hands to conv1d where it computes in float64.
#pragma once

#include "conv1d_args.h"

namespace fastvoc {

// As Conv1dArgs, but weights, bias and slopes are doubles; of the activations all but a snake.
struct Conv1dWideArgs {
  Conv1dArgs shape;
  const double* weight;
  const double* bias;
  double pre_slope;
  double post_slope;
};

// As Source.
struct WideSource {
  const double* data;
  std::ptrdiff_t step;
  std::ptrdiff_t channel;
  std::int64_t steps;

  double at(std::int64_t t, int c) const { return data[t * step + c * channel]; }
};

constexpr std::int64_t kWideStrip = 48;  // output steps

// Doubles of scratch memory that a task of up to `steps` output steps needs: the input of a strip, padded.
inline std::int64_t wide_workspace(const Conv1dArgs& args, std::int64_t steps) {
  const std::int64_t strip = std::min(kWideStrip, steps);
  return ((strip - 1) * args.stride + std::int64_t{1} * args.dilation * (args.kernel - 1) + 1) * args.cin;
}

}  // namespace fastvoc
