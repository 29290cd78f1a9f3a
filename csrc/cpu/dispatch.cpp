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
  switch (current_isa()) {
#if defined(__x86_64__)
    case kAvx512Bf16:
      return avx512_bf16::engine();
    case kAvx512:
      return avx512::engine();
    case kAvx2:
      return avx2::engine();
#endif
    default:
      return portable::engine();
  }
}

}  // namespace fastvoc
