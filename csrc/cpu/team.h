// The output channels of a few rows, shared out among threads.
#pragma once

#include "args.h"

namespace fastvoc::FASTVOC_ISA {

// Calls part(first, last, i) for ranges of panels, pairs of them where they can: range i, or all at once without a team. Each
// output is a sum of its own, so that where ranges begin never changes a bit.
template <class Part>
void share_panels(const Team* team, int panels, const Part& part) {
  if (!team) return part(0, panels, 0);
  struct Work {
    const Part& part;
    int panels;
    int parts;
  };
  const Work work{part, panels, team->parts};
  const auto run = [](const void* state, int i) {
    const Work& w = *static_cast<const Work*>(state);
    const int pairs = (w.panels + 1) / 2;
    const auto cut = [&](int n) { return std::min(2 * (pairs * n / w.parts), w.panels); };
    if (cut(i) < cut(i + 1)) w.part(cut(i), cut(i + 1), i);
  };
  team->run(team->parts, run, &work);
}

}  // namespace fastvoc::FASTVOC_ISA
