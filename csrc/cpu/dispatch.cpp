#include "dispatch.h"

#include <atomic>

namespace fastvoc {

Isa detected_isa() {
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

static std::atomic<int>& chosen() {
  static std::atomic<int> isa{detected_isa()};
  return isa;
}

Isa current_isa() { return static_cast<Isa>(chosen().load(std::memory_order_relaxed)); }

void limit_isa(Isa isa) { chosen().store(std::min<int>(isa, detected_isa()), std::memory_order_relaxed); }

const Engine& engine() {
#if defined(__x86_64__)
  static constexpr Engine best{avx512::floats, avx512::only_floats, avx512_bf16::halves, avx512_bf16::bytes};
  static constexpr Engine wide{avx512::floats, avx512::only_floats, avx512::halves, avx512::bytes};
  static constexpr Engine usual{avx2::floats, avx2::only_floats, avx2::halves, avx2::bytes};
  switch (current_isa()) {
    case kAvx512Bf16:
      return best;
    case kAvx512:
      return wide;
    case kAvx2:
      return usual;
    default:
      break;
  }
#endif
  static constexpr Engine any{portable::floats, portable::only_floats, portable::halves, portable::bytes};
  return any;
}

}  // namespace fastvoc
