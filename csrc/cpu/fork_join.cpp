// OpenMP's threads wait for one another without end: where other programs want the processors, whoever is not running holds up
// the rest for a slice of theirs at every fork. So a fork that was held up sends those of the next while to threads of our own,
// which are not waited for before they have begun a piece, and which sleep when they wait for long. OpenMP's serve as long
// as nobody is in their way: torch's own operations leave them awake, and they would stand in the way of others.
#include "fork_join.h"

#include <pthread.h>
#include <sched.h>
#include <time.h>
#include <torch/csrc/stable/ops.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <exception>
#include <memory>
#include <utility>

#include "denormals.h"

namespace fastvoc {
namespace {

constexpr std::int64_t kMostThreads = 64, kBoards = 16;
constexpr std::int64_t kAwake = 50'000;         // ns that a thread looks for what it waits for before it sleeps
constexpr std::int64_t kBetween = 200'000;      // the same between forks, whose layers have some Python in between
constexpr std::int64_t kHeldUp = 500'000;       // ns of waiting that tell of other programs
constexpr std::int64_t kShortest = 20'000'000, kLongest = 2'000'000'000;  // ns for which our own threads are then taken

std::int64_t now() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * std::int64_t{1'000'000'000} + t.tv_nsec;
}

// Looks until ready() for as long as a thread stays awake; whether it was.
template <class Ready>
bool look(const Ready& ready, std::int64_t awake = kAwake) {
  const std::int64_t until = now() + awake;
  do {
    for (int i = 0; i < 16; ++i) {
      if (ready()) return true;
#if defined(__x86_64__)
      __builtin_ia32_pause();
#elif defined(__aarch64__)
      asm volatile("yield");
#endif
    }
  } while (now() < until);
  return false;
}

thread_local bool inside = false;

// The pieces of one fork.
class Work {
 public:
  void begin(std::int64_t count, std::int64_t members, void (*piece)(const void*, std::int64_t), const void* work) {
    piece_ = piece, work_ = work, members_ = members;
    left_.store(count, std::memory_order_relaxed);
    finished_.store(0, std::memory_order_relaxed);
    failed_.store(false, std::memory_order_relaxed);
    const std::int64_t each = (count + members - 1) / members;  // the last pieces may be the longest, so others have one less
    for (std::int64_t m = 0; m < members; ++m) {
      Range& range = ranges_[static_cast<std::size_t>(m)];
      range.next.store(m * each, std::memory_order_relaxed);
      range.end = std::min((m + 1) * each, count);
    }
  }

  // What a member does: its own range, then what is left of the others'.
  void run(std::int64_t member) {
    const FlushDenormals flush;
    inside = true;
    for (std::int64_t k = 0; k < members_; ++k) {
      Range& range = ranges_[static_cast<std::size_t>((member + k) % members_)];
      while (range.next.load(std::memory_order_relaxed) < range.end) {
        const std::int64_t i = range.next.fetch_add(1, std::memory_order_relaxed);
        if (i < range.end) run_piece(i);
      }
    }
    inside = false;
  }

  void await() {
    if (!look([&] { return left_.load(std::memory_order_acquire) == 0; })) finished_.wait(0, std::memory_order_acquire);
  }

  void rethrow() {
    if (failed_.load(std::memory_order_relaxed)) std::rethrow_exception(std::exchange(error_, nullptr));
  }

 private:
  struct alignas(64) Range {
    std::atomic<std::int64_t> next;
    std::int64_t end;
  };

  void run_piece(std::int64_t i) {
    try {
      piece_(work_, i);
    } catch (...) {
      if (!failed_.exchange(true)) error_ = std::current_exception();
    }
    if (left_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
      finished_.store(1, std::memory_order_release);
      finished_.notify_one();
    }
  }

  void (*piece_)(const void*, std::int64_t);
  const void* work_;
  std::int64_t members_;
  std::atomic<std::int64_t> left_;
  std::atomic<int> finished_;
  std::atomic<bool> failed_;
  std::exception_ptr error_;
  std::array<Range, kMostThreads> ranges_;
};

// A place where a fork waits for threads to join it. It outlives the fork, since a thread may leave after all is done.
class alignas(64) Board {
 public:
  bool take() {
    if (taken_.exchange(true, std::memory_order_acquire)) return false;
    if (state_.load(std::memory_order_acquire) == 0) return true;
    taken_.store(false, std::memory_order_release);
    return false;
  }
  void give_back() { taken_.store(false, std::memory_order_release); }

  void open(std::int64_t wanted) { state_.store(static_cast<std::uint64_t>(wanted) << 32, std::memory_order_release); }
  void close() { state_.fetch_and(kInside, std::memory_order_relaxed); }

  // Joins a fork that wants more threads, and works.
  bool join() {
    std::uint64_t state = state_.load(std::memory_order_acquire);
    do {
      if (state >> 32 == 0) return false;
    } while (!state_.compare_exchange_weak(state, state - (std::uint64_t{1} << 32) + 1, std::memory_order_acquire));
    work.run(static_cast<std::int64_t>(state >> 32));
    state_.fetch_sub(1, std::memory_order_release);
    return true;
  }

  Work work;

 private:
  static constexpr std::uint64_t kInside = 0xffffffff;  // the threads at work; above it those that are wanted

  std::atomic<bool> taken_{false};
  std::atomic<std::uint64_t> state_{0};
};

class Pool {
 public:
  // False where more calls than there are boards run at once.
  bool run(std::int64_t count, std::int64_t members, void (*piece)(const void*, std::int64_t), const void* work) {
    const auto board = std::find_if(boards_.begin(), boards_.end(), [](Board& b) { return b.take(); });
    if (board == boards_.end()) return false;
    start(std::min(members, processors_) - 1);
    board->work.begin(count, members, piece, work);
    board->open(members - 1);
    calls_.fetch_add(1);
    for (std::int64_t i = std::min(members - 1, sleeping_.load()); i > 0; --i) calls_.notify_one();
    board->work.run(0);
    board->close();
    board->work.await();
    struct Free {
      Board& board;
      ~Free() { board.give_back(); }
    } const free{*board};
    board->work.rethrow();
    return true;
  }

  // The process's. A child of a fork has none of its parent's threads, so it gets a pool of its own.
  static Pool& get() {
    Pool* pool = current().load(std::memory_order_acquire);
    if (pool) return *pool;
    static const int registered = pthread_atfork(nullptr, nullptr, [] { current().store(nullptr); });
    static_cast<void>(registered);
    auto made = std::make_unique<Pool>();
    if (current().compare_exchange_strong(pool, made.get())) return *made.release();
    return *pool;
  }

 private:
  static std::atomic<Pool*>& current() {
    static std::atomic<Pool*> pool{nullptr};
    return pool;
  }

  // The processors that this process may use when its pool is made: more threads would stand in each other's way.
  static std::int64_t processors() {
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : sysconf(_SC_NPROCESSORS_ONLN);
  }

  // Where the system gives no more threads, those that there are do the work.
  void start(std::int64_t wanted) {
    for (std::int64_t have = threads_.load(std::memory_order_relaxed); have < wanted;) {
      if (!threads_.compare_exchange_weak(have, have + 1)) continue;
      pthread_t thread;
      if (pthread_create(&thread, nullptr, &Pool::serve, this) != 0) {
        threads_.fetch_sub(1);
        return;
      }
      pthread_detach(thread);
      ++have;
    }
  }

  static void* serve(void* self) {
    Pool& pool = *static_cast<Pool*>(self);
    for (;;) {
      const int seen = pool.calls_.load();
      bool worked = false;
      for (Board& board : pool.boards_) worked |= board.join();
      if (worked || look([&] { return pool.calls_.load(std::memory_order_relaxed) != seen; }, kBetween)) continue;
      pool.sleeping_.fetch_add(1);
      pool.calls_.wait(seen);
      pool.sleeping_.fetch_sub(1);
    }
  }

  const std::int64_t processors_ = processors();
  std::array<Board, kBoards> boards_;
  std::atomic<int> calls_{0};
  std::atomic<std::int64_t> sleeping_{0}, threads_{0};
};

// Until when OpenMP's threads are given a rest.
class Weather {
 public:
  bool rough(std::int64_t time) const { return time < until_.load(std::memory_order_relaxed); }

  // A fork waited from `idle` to `end` for threads that had nothing left to begin, after work of its own since `begin`.
  void tell(std::int64_t begin, std::int64_t idle, std::int64_t end) {
    if (end - idle < kHeldUp || end - idle < (idle - begin) / 2) return;
    const std::int64_t last = until_.load(std::memory_order_relaxed), rest = rest_.load(std::memory_order_relaxed);
    const std::int64_t next = end - last < kShortest ? std::min(2 * rest, kLongest) : kShortest;
    rest_.store(next, std::memory_order_relaxed);
    until_.store(end + next, std::memory_order_relaxed);
  }

 private:
  std::atomic<std::int64_t> until_{0}, rest_{kShortest};
};

Weather weather;

}  // namespace

void fork_join(std::int64_t count, std::int64_t threads, void (*piece)(const void*, std::int64_t), const void* work) {
  const std::int64_t members = std::min({count, threads, kMostThreads});
  if (members <= 1 || inside) {
    const FlushDenormals flush;
    for (std::int64_t i = 0; i < count; ++i) piece(work, i);
    return;
  }
  const std::int64_t begin = now();
  if (weather.rough(begin) && Pool::get().run(count, members, piece, work)) return;
  Work shared;
  shared.begin(count, members, piece, work);
  std::int64_t idle = begin;
  torch::stable::parallel_for(0, members, 1, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t m = first; m < last; ++m) shared.run(m);
    if (first == 0) idle = now();
  });
  weather.tell(begin, idle, now());
  shared.rethrow();
}

void await_steps(const std::int64_t* done, std::int64_t steps) {
  const auto ready = [&] { return __atomic_load_n(done, __ATOMIC_ACQUIRE) >= steps; };
  while (!ready() && !look(ready)) {
    const timespec nap{0, 20'000};
    nanosleep(&nap, nullptr);
  }
}

}  // namespace fastvoc
