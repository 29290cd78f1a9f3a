// The kernels' instructions in plain C++: a warp's lanes meet, and the last to come computes for all.
#pragma once

#include "cuda/platform.cuh"

namespace fastvoc::cuda {

struct MatrixLoad {
  std::uint32_t (&r)[4];
  const void* row;
};

inline void load_matrices(std::uint32_t (&r)[4], const void* row) {
  static const char purpose{};
  if (reinterpret_cast<std::uintptr_t>(row) % 16) emulation::fail("a matrix row is not aligned to 16 bytes");
  MatrixLoad mine{r, row};
  emulation::Block::current()->together(&purpose, &mine, [](void* const* given) {
    const auto lane = [&](int i) { return static_cast<MatrixLoad*>(given[i]); };
    for (int matrix = 0; matrix < 4; ++matrix) {
      std::uint32_t words[8][4];
      for (int i = 0; i < 8; ++i) std::memcpy(words[i], lane(8 * matrix + i)->row, sizeof words[i]);
      for (int i = 0; i < 32; ++i) lane(i)->r[matrix] = words[i / 4][i % 4];
    }
  });
}

struct Product {
  float (&c)[4];
  const std::uint32_t (&a)[4];
  std::uint32_t b[2];
};

template <class T>
void multiply_add(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1) {
  static const char purpose{};
  Product mine{c, a, {b0, b1}};
  emulation::Block::current()->together(&purpose, &mine, [](void* const* given) {
    const auto lane = [&](int i) -> Product& { return *static_cast<Product*>(given[i]); };
    const auto half = [](std::uint32_t word, int i) { return widen(T{static_cast<std::uint16_t>(word >> 16 * i)}); };
    float a[16][16], b[16][8];
    for (int i = 0; i < 32; ++i) {
      for (int j = 0; j < 8; ++j) a[i / 4 + j / 2 % 2 * 8][i % 4 * 2 + j % 2 + j / 4 * 8] = half(lane(i).a[j / 2], j % 2);
      for (int j = 0; j < 4; ++j) b[i % 4 * 2 + j % 2 + j / 2 * 8][i / 4] = half(lane(i).b[j / 2], j % 2);
    }
    for (int i = 0; i < 32; ++i) {
      for (int j = 0; j < 4; ++j) {
        float sum = lane(i).c[j];
        for (int k = 0; k < 16; ++k) sum += a[i / 4 + j / 2 * 8][k] * b[k][i % 4 * 2 + j % 2];
        lane(i).c[j] = sum;
      }
    }
  });
}

// A thread's copies land only when it waits for them, so that reading too early shows.
struct Copies {
  struct Copy {
    void* to;
    const void* from;
  };
  std::vector<std::vector<Copy>> groups{1};
};

inline Copies& copies() { return emulation::of_thread<Copies>(); }

inline void copy_async(void* to, const void* from) {
  if ((reinterpret_cast<std::uintptr_t>(to) | reinterpret_cast<std::uintptr_t>(from)) % 16) {
    emulation::fail("a copy of 16 bytes is not aligned");
  }
  copies().groups.back().push_back({to, from});
}

inline void commit_copies() { copies().groups.emplace_back(); }

template <int pending>
void wait_copies() {
  auto& groups = copies().groups;
  while (groups.size() > pending + 1u) {
    for (const auto& copy : groups.front()) std::memcpy(copy.to, copy.from, 16);
    groups.erase(groups.begin());
  }
}

inline unsigned load_acquire(const unsigned* p) {
  emulation::Fiber::current()->yield();
  return *p;
}

inline float load_relaxed(const float* p) { return *p; }

inline void add_release(unsigned* p, unsigned v) {
  *p += v;
  emulation::Block::current()->moved = true;
}

}  // namespace fastvoc::cuda

struct Exchange {
  float v;
  int mask;
  float result;
};

inline float __shfl_xor_sync(unsigned, float v, int mask) {
  static const char purpose{};
  Exchange mine{v, mask, 0.0f};
  emulation::Block::current()->together(&purpose, &mine, [](void* const* given) {
    const auto lane = [&](int i) -> Exchange& { return *static_cast<Exchange*>(given[i]); };
    for (int i = 0; i < 32; ++i) lane(i).result = lane(i ^ lane(i).mask).v;
  });
  return mine.result;
}
