// Linear layers whose weights are trios: three numbers in two words, 21 to 22 bits of each, so that fewer bytes come from memory.
#pragma once

#include "args.h"

namespace fastvoc {

// Words of a group of three inputs and a pair of panels, [2][2][16]. Of the two words of an output the upper 21 bits are the first
// input's weight and the third's, the lower 11 bits of both together, the first word's on top, the second's. A weight is its bits
// on top of a 32-bit integer, times `scale`; of the first and the third the lower bits count, too.
constexpr int kTrioWords = 4 * kPanelWidth;

inline int trio_groups(int inputs) { return static_cast<int>(ceil_div(inputs, 3)); }
inline int trio_pairs(int outputs) { return static_cast<int>(ceil_div(padded(outputs), 2 * kPanelWidth)); }
inline std::int64_t trio_pair_words(int inputs) { return static_cast<std::int64_t>(trio_groups(inputs)) * kTrioWords; }
inline std::int64_t trio_words(int inputs, int outputs) { return trio_pairs(outputs) * trio_pair_words(inputs); }

// A layer: its words by pair of panels, scale and bias of padded width. What lies beyond the inputs and outputs is 0.
struct Trios {
  const std::uint32_t* words;
  const float* scale;
  const float* bias;
  int inputs;
  int outputs;

  const std::uint32_t* pair(std::int64_t p) const { return words + p * trio_pair_words(inputs); }
};

}  // namespace fastvoc
