// Pieces of work shared out among threads: torch's, as long as they come when they are called.
#pragma once

#include <cstdint>

namespace fastvoc {

// Calls piece(work, i) for every i in [0, count), each once, on at most `threads` threads, of which the caller is one, and
// returns when all are done. A thread takes its own range of the pieces first, in order, then what others have not begun. An
// exception of a piece is thrown again here once all are done. Pieces of pieces run on the thread that they come from.
void fork_join(std::int64_t count, std::int64_t threads, void (*piece)(const void* work, std::int64_t i), const void* work);

template <class Piece>
void fork_join(std::int64_t count, std::int64_t threads, const Piece& piece) {
  fork_join(
      count, threads, [](const void* work, std::int64_t i) { (*static_cast<const Piece*>(work))(i); }, &piece);
}

// Waits until `done` has reached `steps`; its writer runs on another thread or has ended.
void await_steps(const std::int64_t* done, std::int64_t steps);

}  // namespace fastvoc
