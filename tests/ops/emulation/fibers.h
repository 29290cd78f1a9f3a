// The threads of a block as fibers of one CPU thread, with barriers and operations of whole warps.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

struct Index {
  unsigned x, y;
};
inline thread_local Index blockIdx, threadIdx, blockDim, gridDim;

namespace emulation {

constexpr std::size_t kStack = 128 * 1024;
constexpr int kWarp = 32, kWarpgroup = 128;

[[noreturn]] inline void fail(const char* what) {
  std::fprintf(stderr, "emulation: %s\n", what);
  std::abort();
}

#if defined(__x86_64__)
// Stores the registers that calls keep on the stack, leaves its top in *from and goes on where `to` left off.
extern "C" void fastvoc_switch_stack(void** from, void* to);
asm(R"(
.text
.weak fastvoc_switch_stack
.type fastvoc_switch_stack, @function
fastvoc_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size fastvoc_switch_stack, .-fastvoc_switch_stack
)");
#endif

using Stack = std::unique_ptr<char[]>;

// Stacks of threads that ended, for the next ones: the allocator would ask the system for each of them.
inline std::vector<Stack>& spare_stacks() {
  static thread_local std::vector<Stack> spare;
  return spare;
}

inline Stack take_stack() {
  if (spare_stacks().empty()) return Stack(new char[kStack]);
  Stack stack = std::move(spare_stacks().back());
  spare_stacks().pop_back();
  return stack;
}

// One thread of a block.
class Fiber {
 public:
  Fiber(unsigned number, std::function<void()> body) : number(number), body_(std::move(body)), stack_(take_stack()) {
#if defined(__x86_64__)
    auto** top = reinterpret_cast<void**>(reinterpret_cast<std::uintptr_t>(stack_.get() + kStack) & ~std::uintptr_t{63});
    *--top = nullptr;
    *--top = reinterpret_cast<void*>(&Fiber::start);
    for (int i = 0; i < 6; ++i) *--top = nullptr;
    inside_ = top;
#else
    getcontext(&inside_);
    inside_.uc_stack.ss_sp = stack_.get();
    inside_.uc_stack.ss_size = kStack;
    inside_.uc_link = nullptr;
    makecontext(&inside_, &Fiber::start, 0);
#endif
  }

#if !defined(__SANITIZE_ADDRESS__)  // to which a stack that is used again is one that was left in the middle
  ~Fiber() { spare_stacks().push_back(std::move(stack_)); }
#endif

  // Runs the thread until it waits or ends.
  void resume() {
    current() = this;
    threadIdx = {number, 0};
#if defined(__SANITIZE_ADDRESS__)
    void* fake = nullptr;
    __sanitizer_start_switch_fiber(&fake, stack_.get(), kStack);
#endif
    go(outside_, inside_);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
    current() = nullptr;
  }

  // Goes back to the scheduler; called by the thread itself.
  void yield() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(done ? nullptr : &fake_, caller_stack_, caller_size_);
#endif
    go(inside_, outside_);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fake_, &caller_stack_, &caller_size_);
#endif
  }

  static Fiber*& current() {
    static thread_local Fiber* fiber = nullptr;
    return fiber;
  }

  const unsigned number;
  bool done = false;
  std::shared_ptr<void> own;  // what an instruction keeps for this thread

 private:
#if defined(__x86_64__)
  using Context = void*;
  static void go(Context& from, Context& to) { fastvoc_switch_stack(&from, to); }
#else
  using Context = ucontext_t;
  static void go(Context& from, Context& to) { swapcontext(&from, &to); }
#endif

  static void start() {
    Fiber* self = current();
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &self->caller_stack_, &self->caller_size_);
#endif
    self->body_();
    self->done = true;
    self->yield();
    fail("a finished thread was resumed");
  }

  std::function<void()> body_;
  Stack stack_;
  Context inside_{}, outside_{};
  [[maybe_unused]] void* fake_ = nullptr;
  [[maybe_unused]] const void* caller_stack_ = nullptr;
  [[maybe_unused]] std::size_t caller_size_ = 0;
};

// A meeting of a fixed number of threads: the last to come does the work of all.
struct Meeting {
  explicit Meeting(std::size_t threads) : given(threads) {}
  std::vector<void*> given;
  unsigned arrived = 0, generation = 0;
  const void* purpose = nullptr;
};

// A block at work. Its shared memory has exactly the bytes that the launch asked for, NaN at first.
class Block {
 public:
  Block(unsigned x, unsigned y, unsigned threads, std::size_t shared, const std::function<void()>& body)
      : x(x),
        y(y),
        threads(threads),
        shared(shared),
        warps_((threads + kWarp - 1) / kWarp, Meeting(kWarp)),
        warpgroups_((threads + kWarpgroup - 1) / kWarpgroup, Meeting(kWarpgroup)) {
    if (posix_memalign(&memory_, 128, shared ? shared : 1)) fail("out of memory");
    std::memset(memory_, 0xff, shared);
    for (unsigned i = 0; i < threads; ++i) fibers_.push_back(std::make_unique<Fiber>(i, body));
  }
  Block(const Block&) = delete;
  ~Block() { std::free(memory_); }

  // Lets every thread run until it waits; `backwards` takes the last one first. Returns whether any got on.
  bool advance(bool backwards) {
    current() = this;
    moved = false;
    for (unsigned i = 0; i < threads; ++i) {
      Fiber& fiber = *fibers_[backwards ? threads - 1 - i : i];
      if (fiber.done) continue;
      blockIdx = {x, y};
      fiber.resume();
      if (fiber.done) {
        moved = true;
        ++ended_;
      }
    }
    return moved;
  }

  bool done() const { return ended_ == threads; }
  unsigned char* memory() const { return static_cast<unsigned char*>(memory_); }

  void barrier() {
    if (published) published();
    const unsigned generation = generation_;
    if (++arrived_ == threads) {
      arrived_ = 0;
      ++generation_;
      moved = true;
      return;
    }
    while (generation_ == generation) {
      if (ended_) fail("a thread ended while others wait at a barrier");
      Fiber::current()->yield();
    }
  }

  // Hands `mine` in; the last lane of the warp to come calls work(the operands of all lanes). All lanes must come.
  template <class Work>
  void together(const void* purpose, void* mine, const Work& work) {
    meet(warps_[Fiber::current()->number / kWarp], purpose, mine, work);
  }

  // The same for the threads of a warpgroup.
  template <class Work>
  void together_in_four(const void* purpose, void* mine, const Work& work) {
    meet(warpgroups_[Fiber::current()->number / kWarpgroup], purpose, mine, work);
  }

  static Block*& current() {
    static thread_local Block* block = nullptr;
    return block;
  }

  const unsigned x, y, threads;
  const std::size_t shared;
  bool moved = false;
  std::shared_ptr<void> own;         // what instructions keep for this block
  std::function<void()> published;   // called where a thread comes to a barrier
  std::function<bool()> unblocked;   // called where no thread gets on; returns whether that may have changed

 private:
  template <class Work>
  void meet(Meeting& meeting, const void* purpose, void* mine, const Work& work) {
    if (meeting.arrived && meeting.purpose != purpose) fail("threads that work together meet for different operations");
    meeting.purpose = purpose;
    meeting.given[Fiber::current()->number % meeting.given.size()] = mine;
    const unsigned generation = meeting.generation;
    if (++meeting.arrived == meeting.given.size()) {
      work(meeting.given.data());
      meeting.arrived = 0;
      ++meeting.generation;
      moved = true;
      return;
    }
    while (meeting.generation == generation) Fiber::current()->yield();
  }

  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<Meeting> warps_, warpgroups_;
  void* memory_ = nullptr;
  unsigned arrived_ = 0, generation_ = 0, ended_ = 0;
};

}  // namespace emulation
