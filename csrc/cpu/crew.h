// Work in phases that threads share out under a single fork: nobody begins a phase before the one before it is done.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "fork_join.h"

namespace fastvoc {

// Each phase has as many pieces as there are members. A member takes its own piece first, then those that nobody has begun, so
// that no phase waits for a member that has not started, whenever and in however few threads they run.
class Crew {
 public:
  Crew(int members, int phases)
      : members_(members),
        taken_(members > 1 ? static_cast<std::size_t>(members) * static_cast<std::size_t>(phases) : 0),
        done_(members > 1 ? static_cast<std::size_t>(phases) : 0) {}

  int members() const { return members_; }

 private:
  friend class CrewMember;

  int members_;
  std::vector<char> taken_;
  std::vector<std::int64_t> done_;
};

// One member on its way through the phases; all go through the same ones.
class CrewMember {
 public:
  CrewMember(Crew& crew, int index) : crew_(crew), index_(index) {}

  // Calls part(piece, pieces) for some of the next phase's pieces and returns when all of them are done.
  template <class Part>
  void share(const Part& part) {
    const int pieces = crew_.members_;
    if (pieces == 1) return part(0, 1);
    for (int i = 0; i < pieces; ++i) {
      const int piece = (index_ + i) % pieces;
      char* taken = &crew_.taken_[phase_ * static_cast<std::size_t>(pieces) + static_cast<std::size_t>(piece)];
      if (__atomic_exchange_n(taken, char{1}, __ATOMIC_RELAXED)) continue;
      part(piece, pieces);
      __atomic_fetch_add(&crew_.done_[phase_], 1, __ATOMIC_RELEASE);
    }
    await_steps(&crew_.done_[phase_], pieces);
    ++phase_;
  }

  // The same for ranges part(first, last) of `count` rows.
  template <class Part>
  void share_rows(std::int64_t count, const Part& part) {
    share([&](int piece, int pieces) {
      const std::int64_t first = count * piece / pieces, last = count * (piece + 1) / pieces;
      if (first < last) part(first, last);
    });
  }

  // Where this member's own range of `count` begins.
  std::int64_t own(std::int64_t count) const { return count * index_ / crew_.members_; }

  // The same for panels of output channels, pairs of them where they can.
  template <class Part>
  void share_panels(int panels, const Part& part) {
    share_rows((panels + 1) / 2, [&](std::int64_t first, std::int64_t last) {
      part(static_cast<int>(2 * first), std::min(static_cast<int>(2 * last), panels));
    });
  }

 private:
  Crew& crew_;
  int index_;
  std::size_t phase_ = 0;
};

}  // namespace fastvoc
