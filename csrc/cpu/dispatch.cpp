#include "dispatch.h"

#include <algorithm>
#include <atomic>

#if !defined(FASTVOC_BEST_ISA)
#define FASTVOC_BEST_ISA 3  // kAvx512Bf16; the build says less where it leaves kernels out
#endif

namespace fastvoc {
namespace {

Isa isa_of_this_cpu() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return kPortable;
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
      !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl")) {
    return kAvx2;
  }
  return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni") ? kAvx512Bf16 : kAvx512;
#else
  return kPortable;
#endif
}

std::atomic<int>& chosen() {
  static std::atomic<int> isa{detected_isa()};
  return isa;
}

}  // namespace

Isa detected_isa() { return std::min(isa_of_this_cpu(), static_cast<Isa>(FASTVOC_BEST_ISA)); }

Isa current_isa() { return static_cast<Isa>(chosen().load(std::memory_order_relaxed)); }

void limit_isa(Isa isa) { chosen().store(std::min<int>(isa, detected_isa()), std::memory_order_relaxed); }

const Engine& engine() {
#if defined(__x86_64__)
  switch (current_isa()) {
#if FASTVOC_BEST_ISA >= 3
    case kAvx512Bf16: {
      static constexpr Engine best{avx512::floats, avx512::only_floats, avx512_bf16::halves, avx512_bf16::bytes};
      return best;
    }
#endif
#if FASTVOC_BEST_ISA >= 2
    case kAvx512: {
      static constexpr Engine wide{avx512::floats, avx512::only_floats, avx512::halves, avx512::bytes};
      return wide;
    }
#endif
#if FASTVOC_BEST_ISA >= 1
    case kAvx2: {
      static constexpr Engine usual{avx2::floats, avx2::only_floats, avx2::halves, avx2::bytes};
      return usual;
    }
#endif
    default:
      break;
  }
#endif
  static constexpr Engine any{portable::floats, portable::only_floats, portable::halves, portable::bytes};
  return any;
}

}  // namespace fastvoc
