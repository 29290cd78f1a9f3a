// Forks of many kinds: with OpenMP's stand-in, and beside "other programs", which a piece that sleeps on another thread plays.
#include "cpu/fork_join.h"

#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace {

using fastvoc::fork_join;

void check(bool right, const char* what) {
  if (right) return;
  std::printf("%s\n", what);
  std::fflush(stdout);
  std::_Exit(1);
}

void sleep_ms(long ms) {
  const timespec time{0, ms * 1'000'000};
  nanosleep(&time, nullptr);
}

// From here on, for a tenth of a second, forks go to the pool: the second thread's piece holds this one up.
void hold_up() {
  const std::thread::id caller = std::this_thread::get_id();
  fork_join(2, 2, [&](std::int64_t) {
    if (std::this_thread::get_id() != caller) sleep_ms(5);
    else sleep_ms(1);
  });
}

void every_piece_once(std::int64_t count, std::int64_t threads) {
  std::vector<std::atomic<int>> seen(static_cast<std::size_t>(count));
  fork_join(count, threads, [&](std::int64_t i) { seen[static_cast<std::size_t>(i)].fetch_add(1); });
  for (const auto& times : seen) check(times.load() == 1, "a piece ran more or less than once");
}

void all_counts() {
  for (std::int64_t count = 0; count < 40; ++count) {
    for (const std::int64_t threads : {1, 2, 3, 5, 8}) every_piece_once(count, threads);
  }
  every_piece_once(1000, 100);
}

void throws() {
  std::atomic<int> done{0};
  std::string said;
  try {
    fork_join(20, 4, [&](std::int64_t i) {
      done.fetch_add(1);
      if (i % 7 == 3) throw std::runtime_error("piece");
    });
  } catch (const std::runtime_error& error) {
    said = error.what();
  }
  check(said == "piece", "the exception of a piece was lost");
  check(done.load() == 20, "pieces were left out after an exception");
  every_piece_once(20, 4);
}

void pieces_of_pieces() {
  std::atomic<int> done{0};
  fork_join(6, 3, [&](std::int64_t) {
    const std::thread::id mine = std::this_thread::get_id();
    fork_join(5, 3, [&](std::int64_t) {
      check(std::this_thread::get_id() == mine, "a piece of a piece left its thread");
      done.fetch_add(1);
    });
  });
  check(done.load() == 30, "pieces of pieces were lost");
}

void many_callers() {
  std::vector<std::thread> callers;
  for (int c = 0; c < 24; ++c) {
    callers.emplace_back([] {
      for (int n = 0; n < 100; ++n) every_piece_once(n % 9, 3);
    });
  }
  for (std::thread& caller : callers) caller.join();
}

// One thread writes steps, the other waits for each.
void follows() {
  std::int64_t done = 0, sum = 0;
  fork_join(2, 2, [&](std::int64_t i) {
    for (std::int64_t step = 1; step <= 50; ++step) {
      if (i == 0) {
        if (step % 20 == 0) sleep_ms(1);
        __atomic_store_n(&done, step, __ATOMIC_RELEASE);
      } else {
        fastvoc::await_steps(&done, step);
        sum += step;
      }
    }
  });
  check(sum == 1275, "a step was not waited for");
}

void child() {
  std::fflush(stdout);
  const pid_t pid = fork();
  if (pid == 0) {
    all_counts();
    throws();
    std::_Exit(0);
  }
  int status = 0;
  check(waitpid(pid, &status, 0) == pid && status == 0, "a forked child did not finish its pieces");
}

}  // namespace

int main(int, char** arguments) {
  const bool forks = arguments[1] != nullptr;
  for (int round = 0; round < 6; ++round) {
    if (round % 2) hold_up();
    all_counts();
    throws();
    pieces_of_pieces();
    many_callers();
    follows();
    if (forks && round % 2) child();
  }
  std::printf("done\n");
}
