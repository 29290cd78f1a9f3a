// Threads, in one vocabulary. A call holds a grant of the machine's threads while others run as well. A team shares out the
// channels of few rows, with a fork and a join for each product; a crew a whole network under a single fork, phase by phase.
// What one of them does at a time is a part: range i of so many of the work.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <vector>

#include "fork_join.h"

namespace fastvoc {

// Threads granted to a call while it lives: as many as wanted, but no more than are left, and at least one. So models that run at
// once on threads of their own divide the cores; results do not depend on it.
class Grant {
 public:
  Grant(std::int64_t wanted, std::int64_t all) {
    std::int64_t before = taken().load(std::memory_order_relaxed);
    do {
      count_ = std::clamp<std::int64_t>(all - before, 1, std::max<std::int64_t>(wanted, 1));
    } while (!taken().compare_exchange_weak(before, before + count_, std::memory_order_relaxed));
  }
  ~Grant() { taken().fetch_sub(count_, std::memory_order_relaxed); }
  Grant(const Grant&) = delete;
  Grant& operator=(const Grant&) = delete;

  std::int64_t count() const { return count_; }

 private:
  static std::atomic<std::int64_t>& taken() {
    static std::atomic<std::int64_t> threads{0};
    return threads;
  }

  std::int64_t count_;
};

// Calls use(first, last, i) with range i of `parts` of `count` pieces of work, unless it is empty.
template <class Use>
void range_of(std::int64_t count, int i, int parts, const Use& use) {
  const std::int64_t first = count * i / parts, last = count * (i + 1) / parts;
  if (first < last) use(first, last, i);
}

// `run` calls part(work, i) for every i in [0, parts).
struct Team {
  int parts;
  void (*run)(int parts, void (*part)(const void* work, int i), const void* work);
};

// Calls use(first, last, i) for the ranges of `count` pieces of work, or for all at once without a team.
template <class Use>
void share(const Team* team, std::int64_t count, const Use& use) {
  if (!team) return use(std::int64_t{0}, count, 0);
  struct Work {
    const Use& use;
    std::int64_t count;
    int parts;
  };
  const Work work{use, count, team->parts};
  const auto run = [](const void* state, int i) {
    const Work& w = *static_cast<const Work*>(state);
    range_of(w.count, i, w.parts, w.use);
  };
  team->run(team->parts, run, &work);
}

// Nobody begins a phase before the one before it is done. Each phase has as many parts as there are members. A member takes its
// own part first, then those that nobody has begun, so that no phase waits for a member that has not started, whenever and in
// however few threads they run.
class Crew {
 public:
  Crew(int members, int phases)
      : members_(members),
        taken_(members > 1 ? static_cast<std::size_t>(members) * static_cast<std::size_t>(phases) : 0),
        done_(members > 1 ? static_cast<std::size_t>(phases) : 0) {}

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

  // Calls use(i, parts) for some of the next phase's parts and returns when all of them are done.
  template <class Use>
  void phase(const Use& use) {
    const int parts = crew_.members_;
    if (parts == 1) return use(0, 1);
    for (int n = 0; n < parts; ++n) {
      const int i = (index_ + n) % parts;
      char* taken = &crew_.taken_[phase_ * static_cast<std::size_t>(parts) + static_cast<std::size_t>(i)];
      if (__atomic_exchange_n(taken, char{1}, __ATOMIC_RELAXED)) continue;
      use(i, parts);
      __atomic_fetch_add(&crew_.done_[phase_], 1, __ATOMIC_RELEASE);
    }
    await_steps(&crew_.done_[phase_], parts);
    ++phase_;
  }

  // Where this member's own range of `count` begins.
  std::int64_t own(std::int64_t count) const { return count * index_ / crew_.members_; }

 private:
  Crew& crew_;
  int index_;
  std::size_t phase_ = 0;
};

// The next phase of a crew as ranges, as by a team.
template <class Use>
void share(CrewMember& member, std::int64_t count, const Use& use) {
  member.phase([&](int i, int parts) { range_of(count, i, parts, use); });
}

// Panels of output channels, pairs of them where they can, by a team or a crew. Each output is a sum of its own, so that where
// ranges begin never changes a bit.
template <class Sharers, class Use>
void share_panels(Sharers&& by, int panels, const Use& use) {
  share(by, (panels + 1) / 2, [&](std::int64_t first, std::int64_t last, int i) {
    use(static_cast<int>(2 * first), std::min(static_cast<int>(2 * last), panels), i);
  });
}

}  // namespace fastvoc
