// The plan of a real transform, as fastvoc/runtime/packing.py lays it out.
#pragma once

#include "args.h"

namespace fastvoc {

constexpr int kMaxPasses = 16;

// A transform of `size` real numbers by a complex one of half the size, in passes of radix 2, 3, 4, 5 or 8.
struct RealFft {
  int size;
  int passes;
  int radices[kMaxPasses];
  const float* split;    // cos, sin of 2 pi k / size for k = 0..size / 4
  const float* twiddles; // cos, sin for each pass of n points: 2 pi p k / n for p = 1..n / r - 1, k = 1..r - 1

  int half() const { return size / 2; }
};

}  // namespace fastvoc
