// Work on a few rows, shared out among threads.
#pragma once

#include "args.h"

namespace fastvoc::FASTVOC_ISA {

// Calls part(first, last, i) for ranges of `count` pieces of work: range i, or all at once without a team.
template <class Part>
void share(const Team* team, std::int64_t count, const Part& part) {
  if (!team) return part(std::int64_t{0}, count, 0);
  struct Work {
    const Part& part;
    std::int64_t count;
    int parts;
  };
  const Work work{part, count, team->parts};
  const auto run = [](const void* state, int i) {
    const Work& w = *static_cast<const Work*>(state);
    const std::int64_t first = w.count * i / w.parts, last = w.count * (i + 1) / w.parts;
    if (first < last) w.part(first, last, i);
  };
  team->run(team->parts, run, &work);
}

// The same for panels of output channels, pairs of them where they can. Each output is a sum of its own, so that where ranges
// begin never changes a bit.
template <class Part>
void share_panels(const Team* team, int panels, const Part& part) {
  share(team, (panels + 1) / 2, [&](std::int64_t first, std::int64_t last, int i) {
    part(static_cast<int>(2 * first), std::min(static_cast<int>(2 * last), panels), i);
  });
}

}  // namespace fastvoc::FASTVOC_ISA
