// Hopper's instructions in plain C++.
#pragma once

#include "asynchronous.h"
#include "cuda/operand.cuh"
#include "cuda/ptx.cuh"

#define FASTVOC_HOPPER 1

namespace fastvoc::cuda {

inline bool hopper() { return emulation::hopper; }

inline emulation::Asynchronous& beside() { return emulation::Asynchronous::of_block(); }

inline unsigned shared_address(const void* p) { return beside().address(p); }

inline std::uint32_t pack_pair(float low, float high) {
  return narrow<BFloat16>(low).bits | std::uint32_t{narrow<BFloat16>(high).bits} << 16;
}

inline float2 unpack_pair(std::uint32_t pair) {
  return {std::bit_cast<float>(pair << 16), std::bit_cast<float>(pair & 0xffff0000u)};
}

template <class T>
void store_operand(void* to, const T& value) {
  if (reinterpret_cast<std::uintptr_t>(to) % sizeof(T)) emulation::fail("an operand is not aligned");
  std::memcpy(to, &value, sizeof value);
  beside().stored(to, sizeof value);
}

inline void fence_operands() { beside().fence(); }
inline void barrier_init(std::uint64_t* barrier, unsigned arrivals) { beside().init(barrier, arrivals); }
inline void barriers_ready() { beside().ready(); }
inline void barrier_arrive(std::uint64_t* barrier) { beside().arrive(barrier); }
inline void barrier_expect(std::uint64_t* barrier, unsigned bytes) { beside().arrive(barrier, bytes); }
inline void barrier_wait(std::uint64_t* barrier, unsigned parity) { beside().wait(barrier, parity); }

inline void copy_bulk(void* to, const void* from, unsigned bytes, std::uint64_t* barrier) {
  beside().copy(to, from, bytes, barrier);
}

inline void group_sync(int id, int threads) { beside().named(id, threads, true); }
inline void group_arrive(int id, int threads) { beside().named(id, threads, false); }

template <int count>
void more_registers() {
  static_assert(count % 8 == 0 && count >= 24 && count <= 256);
  beside().all_of_warpgroup();
}
template <int count>
void fewer_registers() {
  more_registers<count>();
}

inline void products_fence() { beside().fence_products(); }
inline void products_commit() { beside().commit(); }

template <int pending>
void products_wait() {
  beside().wait_products(pending);
}

template <class... Values>
void hold(Values&...) {}

template <int kCount>
void sums_ready(float (&)[kCount]) {}

template <int kCount>
void product(float (&sums)[kCount], std::uint64_t a, std::uint64_t b, int adds) {
  beside().issue({sums, 2 * kCount, a, b, adds != 0});
}

inline std::uint32_t from_quad(std::uint32_t value, int quad) {
  struct Part {
    std::uint32_t value;
    int quad;
    std::uint32_t result;
  };
  static const char purpose{};
  Part mine{value, quad, 0};
  emulation::Block::current()->together(&purpose, &mine, [](void* const* given) {
    const auto lane = [&](int i) -> Part& { return *static_cast<Part*>(given[i]); };
    for (int i = 0; i < 32; ++i) lane(i).result = lane(lane(i).quad * 4 + i % 4).value;
  });
  return mine.result;
}

}  // namespace fastvoc::cuda
