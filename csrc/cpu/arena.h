// Scratch memory of one thread, kept between calls because fresh pages cost more than the kernels of a short clip.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <new>

namespace fastvoc {

class Arena {
 public:
  Arena() = default;
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  ~Arena() { std::free(data_); }

  // At least `count` floats, aligned to a cache line; what they held before is lost.
  float* floats(std::size_t count) {
    const std::size_t bytes = (count * sizeof(float) + 63) / 64 * 64;
    if (bytes > bytes_) {
      std::free(data_);
      bytes_ = 0;
      data_ = std::aligned_alloc(64, bytes);
      if (!data_) throw std::bad_alloc();
      bytes_ = bytes;
    }
    return static_cast<float*>(data_);
  }

  static Arena& mine() {
    static thread_local Arena arena;
    return arena;
  }

  // What a thread lends to the tasks that it starts, which use their own at the same time.
  static Arena& lent() {
    static thread_local Arena arena;
    return arena;
  }

 private:
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
};

}  // namespace fastvoc
