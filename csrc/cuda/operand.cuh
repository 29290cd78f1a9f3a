// Where the operands of warpgroups' products lie in shared memory.
#pragma once

#include <cstdint>

#include "cuda/platform.cuh"

namespace fastvoc::cuda {

// A matrix without swizzle, in pieces of 8 rows (of b: columns) of 16 bytes, which follow one another in 128 bytes. This part of
// its description has its address, any multiple of 16, and the bytes from a piece to the next along the 16 numbers that are
// summed up; one more in it is 16 bytes further.
__host__ __device__ inline unsigned operand_part(unsigned address, int along) {
  return (address & 0x3ffff) >> 4 | static_cast<unsigned>(along) >> 4 << 16;
}

// The description, with the bytes from a piece to that of the next 8 rows.
__host__ __device__ inline std::uint64_t operand(unsigned part, int across) {
  return std::uint64_t{static_cast<unsigned>(across) >> 4} << 32 | part;
}

}  // namespace fastvoc::cuda
