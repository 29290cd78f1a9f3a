// Which instruction set runs: the best that this CPU has, or a lower one on request.
#pragma once

#include "engine.h"

namespace fastvoc {

// In rising order; the numbers are those of fastvoc/runtime/library.py.
enum Isa : int { kPortable = 0, kAvx2 = 1, kAvx512 = 2, kAvx512Bf16 = 3 };

#define FASTVOC_KERNELS                           \
  extern const Kernels<float> floats;             \
  extern const FloatKernels only_floats;          \
  extern const Kernels<Bf16> halves;              \
  extern const Convolutions<std::uint8_t> bytes;

namespace portable {
FASTVOC_KERNELS
}
namespace avx2 {
FASTVOC_KERNELS
}
namespace avx512 {
FASTVOC_KERNELS
}
namespace avx512_bf16 {
FASTVOC_KERNELS
}
#undef FASTVOC_KERNELS

// The highest instruction set of this CPU that the library was built for.
Isa detected_isa();

// The one in use.
Isa current_isa();

// Lowers the one in use to `isa`, or to the detected one if that is lower.
void limit_isa(Isa isa);

// The kernels in use.
const Engine& engine();

}  // namespace fastvoc
