// What runs beside a block's threads on Hopper: bulk copies, barriers in memory that count them, products of warpgroups.
// Each is as inconvenient as it may be, so that a wait that is missing shows in the numbers:
// - a bulk copy lands when no thread gets on without it, the last one first, or at once with `emulation::early`;
// - a product reads its operands when it is issued and again when it is waited for; rows that differ become NaN;
// - the sums of a product at work are NaN for the threads;
// - what a thread stores is seen by products after its fence and its next barrier.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <map>

#include "cuda/platform.cuh"

namespace emulation {

constexpr unsigned kSharedBase = 1024;  // the address of a block's first byte
constexpr int kNamed = 16;

class Asynchronous {
 public:
  explicit Asynchronous(Block& block)
      : block_(block), seen_(block.shared, 0xff), stored_(block.threads), fenced_(block.threads), groups_(block.threads / kWarpgroup) {
    block.published = [this] { publish(); };
    block.unblocked = [this] { return land(); };
  }

  static Asynchronous& of_block() {
    Block& block = *Block::current();
    if (!block.own) {
      block.own = std::shared_ptr<void>(new Asynchronous(block), [](void* p) { delete static_cast<Asynchronous*>(p); });
    }
    return *static_cast<Asynchronous*>(block.own.get());
  }

  unsigned address(const void* p) const {
    return kSharedBase + static_cast<unsigned>(static_cast<const unsigned char*>(p) - block_.memory());
  }

  void stored(const void* at, std::size_t bytes) { stored_[thread()].push_back({at, bytes}); }

  void fence() {
    auto& stored = stored_[thread()];
    auto& fenced = fenced_[thread()];
    fenced.insert(fenced.end(), stored.begin(), stored.end());
    stored.clear();
  }

  void init(const void* at, unsigned arrivals) {
    if (reinterpret_cast<std::uintptr_t>(at) % 8) fail("a barrier in memory is not aligned");
    barriers_[at] = {arrivals, arrivals, 0, 0};
    ready_ = false;
  }

  void ready() { ready_ = true; }

  void arrive(const void* at, unsigned bytes = 0) {
    publish();
    Barrier& barrier = barrier_at(at);
    if (barrier.pending == 0) fail("more arrivals at a barrier than it waits for");
    barrier.bytes += bytes;
    --barrier.pending;
    turn(barrier);
  }

  void wait(const void* at, unsigned parity) {
    const Barrier& barrier = barrier_at(at);
    while ((barrier.phase & 1) == (parity & 1)) Fiber::current()->yield();
  }

  void copy(void* to, const void* from, unsigned bytes, const void* at) {
    if ((reinterpret_cast<std::uintptr_t>(to) | reinterpret_cast<std::uintptr_t>(from) | bytes) % 16) {
      fail("a bulk copy is not of aligned multiples of 16 bytes");
    }
    check(address(to), bytes);
    copies_.push_back({to, from, bytes, &barrier_at(at)});
    if (early) land();
  }

  void named(int id, int count, bool waits) {
    publish();
    if (id < 1 || id >= kNamed || count % kWarp) fail("a barrier by number, or its count of threads, is unknown");
    Named& named = named_[static_cast<std::size_t>(id)];
    if (named.arrived && named.count != count) fail("threads disagree on how many a barrier takes");
    named.count = count;
    const unsigned generation = named.generation;
    if (++named.arrived == count) {
      named.arrived = 0;
      ++named.generation;
      block_.moved = true;
      return;
    }
    while (waits && named.generation == generation) Fiber::current()->yield();
  }

  // A thread's part in an operation of its warpgroup.
  struct Part {
    float* sums;
    int columns;
    std::uint64_t a, b;
    bool adds;
  };

  void fence_products() {
    static const char purpose{};
    in_four(purpose, nullptr, [](Group& group, void* const*) { group.fenced = true; });
  }

  void issue(Part mine) {
    static const char purpose{};
    in_four(purpose, &mine, [this](Group& group, void* const* given) {
      if (!group.fenced) fail("a product on sums that the threads had, without a fence");
      const Part& first = *static_cast<Part*>(given[0]);
      Work work{first.columns, first.a, first.b, first.adds, sums_of(group, given), {}, {}};
      read(work);
      for (int i = 0; i < kWarpgroup; ++i) {
        const Part& part = *static_cast<Part*>(given[i]);
        if (part.a != work.a || part.b != work.b || part.adds != work.adds) fail("a warpgroup disagrees on a product");
        std::fill(part.sums, part.sums + work.columns / 2, NAN);
      }
      group.open.push_back(std::move(work));
    });
  }

  void commit() {
    static const char purpose{};
    in_four(purpose, nullptr, [](Group& group, void* const*) {
      group.committed.push_back(std::move(group.open));
      group.open.clear();
    });
  }

  void wait_products(std::size_t pending) {
    static const char purpose{};
    in_four(purpose, nullptr, [this, pending](Group& group, void* const*) {
      while (group.committed.size() > pending) {
        for (Work& work : group.committed.front()) finish(work);
        group.committed.pop_front();
      }
      for (auto at = group.at_work.begin(); at != group.at_work.end();) {
        const bool more = used(group, at->second);
        if (!more) {
          at->second->give();
          group.fenced = false;
        }
        at = more ? std::next(at) : group.at_work.erase(at);
      }
    });
  }

  void all_of_warpgroup() {
    static const char purpose{};
    in_four(purpose, nullptr, [](Group&, void* const*) {});
  }

 private:
  struct Stored {
    const void* at;
    std::size_t bytes;
  };
  struct Barrier {
    unsigned arrivals, pending;
    std::int64_t bytes;
    unsigned phase;
  };
  struct Copy {
    void* to;
    const void* from;
    unsigned bytes;
    Barrier* barrier;
  };
  struct Named {
    int count = 0, arrived = 0;
    unsigned generation = 0;
  };
  // 64 rows of sums, which are the threads' own again after `give`.
  struct Sums {
    int columns;
    std::vector<float> values;
    std::array<float*, kWarpgroup> owners;

    template <class F>
    void each(const F& f) {
      for (int t = 0; t < kWarpgroup; ++t) {
        for (int i = 0; i < columns / 2; ++i) {
          const int row = t / 32 * 16 + t % 32 / 4 + i / 2 % 2 * 8, column = i / 4 * 8 + t % 4 * 2 + i % 2;
          f(owners[static_cast<std::size_t>(t)][i], values[static_cast<std::size_t>(row * columns + column)]);
        }
      }
    }
    void take() {
      each([](float own, float& value) { value = own; });
    }
    void give() {
      each([](float& own, float value) { own = value; });
    }
  };
  using Matrix = std::vector<std::uint16_t>;  // [rows, 16]
  struct Work {
    int columns;
    std::uint64_t a, b;
    bool adds;
    std::shared_ptr<Sums> sums;
    Matrix rows, across;
  };
  struct Group {
    bool fenced = false;
    std::vector<Work> open;
    std::deque<std::vector<Work>> committed;
    std::map<float*, std::shared_ptr<Sums>> at_work;  // by the first thread's
  };

  unsigned thread() const { return Fiber::current()->number; }

  template <class F>
  void in_four(const char& purpose, void* mine, const F& work) {
    Group& group = groups_.at(thread() / kWarpgroup);
    block_.together_in_four(&purpose, mine, [&](void* const* given) { work(group, given); });
  }

  void publish() {
    for (const Stored& each : fenced_[thread()]) see(each.at, each.bytes);
    fenced_[thread()].clear();
  }

  void see(const void* at, std::size_t bytes) {
    std::memcpy(&seen_.at(static_cast<std::size_t>(static_cast<const unsigned char*>(at) - block_.memory())), at, bytes);
  }

  Barrier& barrier_at(const void* at) {
    const auto found = barriers_.find(at);
    if (found == barriers_.end() || !ready_) fail("a barrier in memory is used before it is made known");
    return found->second;
  }

  void turn(Barrier& barrier) {
    if (barrier.pending || barrier.bytes) return;
    barrier.pending = barrier.arrivals;
    ++barrier.phase;
    block_.moved = true;
  }

  bool land() {
    if (copies_.empty()) return false;
    const Copy copy = copies_.back();
    copies_.pop_back();
    std::memcpy(copy.to, copy.from, copy.bytes);
    see(copy.to, copy.bytes);
    copy.barrier->bytes -= copy.bytes;
    turn(*copy.barrier);
    return true;
  }

  void check(unsigned address, unsigned bytes) const {
    if (address < kSharedBase || address + bytes > kSharedBase + block_.shared) fail("an operand beyond shared memory");
  }

  std::shared_ptr<Sums> sums_of(Group& group, void* const* given) {
    float* first = static_cast<Part*>(given[0])->sums;
    const int columns = static_cast<Part*>(given[0])->columns;
    std::shared_ptr<Sums>& sums = group.at_work[first];
    if (sums) return sums;
    sums = std::make_shared<Sums>(Sums{columns, std::vector<float>(static_cast<std::size_t>(64 * columns)), {}});
    for (std::size_t i = 0; i < kWarpgroup; ++i) sums->owners[i] = static_cast<Part*>(given[i])->sums;
    sums->take();
    return sums;
  }

  static bool used(const Group& group, const std::shared_ptr<Sums>& sums) {
    for (const auto& works : group.committed) {
      for (const Work& work : works) {
        if (work.sums == sums) return true;
      }
    }
    for (const Work& work : group.open) {
      if (work.sums == sums) return true;
    }
    return false;
  }

  Matrix matrix(std::uint64_t where, int rows) const {
    if (where >> 46) fail("an operand with a swizzle or a base");
    const auto part = [&](int shift) { return static_cast<unsigned>(where >> shift & 0x3fff) << 4; };
    const unsigned start = part(0), along = part(16), across = part(32);
    Matrix found(static_cast<std::size_t>(rows * 16));
    for (int row = 0; row < rows; ++row) {
      for (unsigned k = 0; k < 2; ++k) {
        const unsigned at = start + static_cast<unsigned>(row) / 8 * across + static_cast<unsigned>(row) % 8 * 16 + k * along;
        check(at, 16);
        std::memcpy(&found[static_cast<std::size_t>(row) * 16 + k * 8], &seen_[at - kSharedBase], 16);
      }
    }
    return found;
  }

  void read(Work& work) const {
    work.rows = matrix(work.a, 64);
    work.across = matrix(work.b, work.columns);
  }

  // The numbers of both readings, those of a row that changed as NaN.
  static std::vector<float> steady(const Matrix& one, const Matrix& other) {
    std::vector<float> values(one.size());
    for (std::size_t row = 0; row < one.size(); row += 16) {
      const bool same = std::equal(&one[row], &one[row] + 16, &other[row]);
      for (std::size_t i = row; i < row + 16; ++i) values[i] = same ? fastvoc::cuda::widen(fastvoc::cuda::BFloat16{one[i]}) : NAN;
    }
    return values;
  }

  void finish(Work& work) const {
    const auto rows = steady(work.rows, matrix(work.a, 64)), across = steady(work.across, matrix(work.b, work.columns));
    const auto columns = static_cast<std::size_t>(work.columns);
    std::vector<float> turned(across.size());
    for (std::size_t n = 0; n < columns; ++n) {
      for (std::size_t k = 0; k < 16; ++k) turned[k * columns + n] = across[n * 16 + k];
    }
    for (std::size_t row = 0; row < 64; ++row) {
      float* sums = &work.sums->values[row * columns];
      if (!work.adds) std::fill(sums, sums + columns, 0.0f);
      for (std::size_t k = 0; k < 16; ++k) {
        const float factor = rows[row * 16 + k];
        for (std::size_t n = 0; n < columns; ++n) sums[n] += factor * turned[k * columns + n];
      }
    }
  }

  Block& block_;
  std::vector<unsigned char> seen_;  // shared memory as products see it
  std::vector<std::vector<Stored>> stored_, fenced_;
  std::map<const void*, Barrier> barriers_;
  bool ready_ = false;
  std::vector<Copy> copies_;
  std::array<Named, kNamed> named_;
  std::vector<Group> groups_;
};

}  // namespace emulation
