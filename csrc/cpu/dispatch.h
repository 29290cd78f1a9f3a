// Which instruction set runs: the best that this CPU has, or a lower one on request.
#pragma once

#include "engine.h"

namespace fastvoc {

// In rising order; the numbers are those of fastvoc/runtime/library.py.
enum Isa : int { kPortable = 0, kAvx2 = 1, kAvx512 = 2, kAvx512Bf16 = 3 };

namespace portable {
const Engine& engine();
}
#if defined(__x86_64__)
namespace avx2 {
const Engine& engine();
}
namespace avx512 {
const Engine& engine();
}
namespace avx512_bf16 {
const Engine& engine();
}
#endif

// The highest instruction set of this CPU.
Isa detected_isa();

// The one in use.
Isa current_isa();

// Lowers the one in use to `isa`, or to the detected one if that is lower.
void limit_isa(Isa isa);

// The kernels in use.
const Engine& engine();

}  // namespace fastvoc
