// What the glue hands to rvq_encode and rvq_decode.
#pragma once

#include "args.h"

namespace fastvoc {

// `count` codebooks in use, each `entries` rows of `channels` floats, one after the other. For the search also: their panels
// of 16 entries [panel][channel][16], and the squared norm of every entry, infinite beyond the last.
struct RvqArgs {
  const float* books;
  const float* panels;
  const float* squares;
  int count;
  int entries;
  int channels;
  const Team* team = nullptr;

  int parts() const { return team ? team->parts : 1; }
};

// One item's codes: of step t in book k at data[t * step + k * book].
template <class Int>
struct Codes {
  Int* data;
  std::ptrdiff_t step;
  std::ptrdiff_t book;
};

inline std::int64_t rvq_strip(const RvqArgs& args, std::int64_t steps) { return strip_steps(padded(args.channels), steps); }

// Floats of scratch memory that a search of up to `steps` steps needs: a strip of residuals, its squared norms, and for every
// part of the team the nearest distance and entry so far in each of 16 lanes.
inline std::int64_t workspace_floats(const RvqArgs& args, std::int64_t steps) {
  return rvq_strip(args, steps) * (padded(args.channels) + 1 + 2 * kPanelWidth * args.parts());
}

}  // namespace fastvoc
