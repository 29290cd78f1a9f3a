// Instructions of sm_90a: products of warpgroups on shared memory, bulk copies, barriers in memory; other targets compile
// without what stands behind FASTVOC_HOPPER. Tests put a plain C++ version in this header's place.
#pragma once

#include "cuda/operand.cuh"
#include "cuda/ptx.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define FASTVOC_HOPPER 1
#else
#define FASTVOC_HOPPER 0
#endif

namespace fastvoc::cuda {

// Whether the current device runs them: capability 9.0 exactly.
inline bool hopper() {
  int device = 0, major = 0, minor = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
  return major == 9 && minor == 0;
}

// Two numbers as bfloat16, the first in the lower half.
__device__ inline std::uint32_t pack_pair(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return reinterpret_cast<const std::uint32_t&>(pair);
}

__device__ inline float2 unpack_pair(std::uint32_t pair) {
  return {__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u)};
}

// Writes to shared memory what products read after `fence_operands` and a barrier.
template <class T>
__device__ inline void store_operand(void* to, const T& value) {
  *static_cast<T*>(to) = value;
}

#if FASTVOC_HOPPER

// The value of that lane of four which has this one's place among them; the bits 3 of its number stay, by the mask in 0x31f.
__device__ inline std::uint32_t from_quad(std::uint32_t value, int quad) {
  std::uint32_t found;
  asm volatile("shfl.sync.idx.b32 %0, %1, %2, 0x31f, 0xffffffff;" : "=r"(found) : "r"(value), "r"(4 * quad));
  return found;
}

__device__ inline void fence_operands() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// A barrier in shared memory, of so many arrivals a phase.
__device__ inline void barrier_init(std::uint64_t* barrier, unsigned arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}

// After the last barrier_init, before __syncthreads.
__device__ inline void barriers_ready() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

__device__ inline void barrier_arrive(std::uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}

// Arrives; the phase also waits for so many bytes of copies.
__device__ inline void barrier_expect(std::uint64_t* barrier, unsigned bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
               : "memory");
}

// Waits until the phase of this parity is over; before the first phase ends the other parity counts as over.
__device__ inline void barrier_wait(std::uint64_t* barrier, unsigned parity) {
  unsigned over = 0;
  do {
    asm volatile(
        "{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}"
        : "=r"(over)
        : "r"(shared_address(barrier)), "r"(parity)
        : "memory");
  } while (!over);
}

// Copies a multiple of 16 bytes from global to shared memory, which the barrier then counts.
__device__ inline void copy_bulk(void* to, const void* from, unsigned bytes, std::uint64_t* barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                   shared_address(to)),
               "l"(from), "r"(bytes), "r"(shared_address(barrier))
               : "memory");
}

// One of sixteen barriers of a block by number, 0 being __syncthreads: waits for so many threads, or only arrives.
__device__ inline void group_sync(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
__device__ inline void group_arrive(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// The registers that each thread of a warpgroup has from here on.
template <int count>
__device__ inline void more_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(count));
}
template <int count>
__device__ inline void fewer_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(count));
}

// Before the first product on sums that were read or written.
__device__ inline void products_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

// Ends a group of products.
__device__ inline void products_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// Waits until at most `pending` groups are at work; sums may be read with 0 pending, after `sums_ready`.
template <int pending>
__device__ inline void products_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory");
}

// Keeps the compiler from computing what follows from values ahead of a loop, for which there are no registers.
template <class... Values>
__device__ inline void hold(Values&... values) {
  (..., [&] { asm volatile("" : "+r"(values)); }());
}

// Keeps the compiler from reading sums before the wait that stands before this.
template <int kCount>
__device__ inline void sums_ready(float (&sums)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(sums[i])::"memory");
}

// sums = a * b, or += where `adds`, for 64 rows of a, twice as many columns of b as there are sums, and 16 in between. A
// warpgroup's thread holds of row 16 (thread / 32) + thread / 4 % 8 + 8 i, column 8 j + 2 (thread % 4) + k sums[4 j + 2 i + k].
#define FASTVOC_NAMES0 "%0, %1, %2, %3, %4, %5, %6, %7"
#define FASTVOC_NAMES1 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define FASTVOC_NAMES2 ", %16, %17, %18, %19, %20, %21, %22, %23"
#define FASTVOC_NAMES3 ", %24, %25, %26, %27, %28, %29, %30, %31"
#define FASTVOC_NAMES4 ", %32, %33, %34, %35, %36, %37, %38, %39"
#define FASTVOC_NAMES5 ", %40, %41, %42, %43, %44, %45, %46, %47"
#define FASTVOC_NAMES6 ", %48, %49, %50, %51, %52, %53, %54, %55"
#define FASTVOC_NAMES7 ", %56, %57, %58, %59, %60, %61, %62, %63"
#define FASTVOC_NAMES8 ", %64, %65, %66, %67, %68, %69, %70, %71"
#define FASTVOC_NAMES9 ", %72, %73, %74, %75, %76, %77, %78, %79"
#define FASTVOC_NAMES10 ", %80, %81, %82, %83, %84, %85, %86, %87"
#define FASTVOC_NAMES11 ", %88, %89, %90, %91, %92, %93, %94, %95"
#define FASTVOC_NAMES12 ", %96, %97, %98, %99, %100, %101, %102, %103"
#define FASTVOC_NAMES13 ", %104, %105, %106, %107, %108, %109, %110, %111"
#define FASTVOC_NAMES14 ", %112, %113, %114, %115, %116, %117, %118, %119"
#define FASTVOC_NAMES15 ", %120, %121, %122, %123, %124, %125, %126, %127"
#define FASTVOC_EIGHT(s, i) \
  "+f"(s[i]), "+f"(s[i + 1]), "+f"(s[i + 2]), "+f"(s[i + 3]), "+f"(s[i + 4]), "+f"(s[i + 5]), "+f"(s[i + 6]), "+f"(s[i + 7])
#define FASTVOC_PRODUCT(columns, names, a, b, adds, ...)                                            \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " adds ", 0;\n"                                      \
               "wgmma.mma_async.sync.aligned.m64n" columns "k16.f32.bf16.bf16 {" names "}, " a ", " b \
               ", p, 1, 1, 0, 0;\n}"                                                                \
               : __VA_ARGS__                                                                       \
               : "l"(a_), "l"(b_), "r"(adds_))

__device__ inline void product(float (&s)[16], std::uint64_t a_, std::uint64_t b_, int adds_) {
  FASTVOC_PRODUCT("32", FASTVOC_NAMES0 FASTVOC_NAMES1, "%16", "%17", "%18",
                  FASTVOC_EIGHT(s, 0), FASTVOC_EIGHT(s, 8));
}
__device__ inline void product(float (&s)[32], std::uint64_t a_, std::uint64_t b_, int adds_) {
  FASTVOC_PRODUCT("64", FASTVOC_NAMES0 FASTVOC_NAMES1 FASTVOC_NAMES2 FASTVOC_NAMES3, "%32", "%33", "%34",
                  FASTVOC_EIGHT(s, 0), FASTVOC_EIGHT(s, 8), FASTVOC_EIGHT(s, 16), FASTVOC_EIGHT(s, 24));
}
__device__ inline void product(float (&s)[64], std::uint64_t a_, std::uint64_t b_, int adds_) {
  FASTVOC_PRODUCT("128", FASTVOC_NAMES0 FASTVOC_NAMES1 FASTVOC_NAMES2 FASTVOC_NAMES3 FASTVOC_NAMES4 FASTVOC_NAMES5 FASTVOC_NAMES6 FASTVOC_NAMES7, "%64", "%65", "%66",
                  FASTVOC_EIGHT(s, 0), FASTVOC_EIGHT(s, 8), FASTVOC_EIGHT(s, 16), FASTVOC_EIGHT(s, 24), FASTVOC_EIGHT(s, 32), FASTVOC_EIGHT(s, 40), FASTVOC_EIGHT(s, 48), FASTVOC_EIGHT(s, 56));
}
__device__ inline void product(float (&s)[128], std::uint64_t a_, std::uint64_t b_, int adds_) {
  FASTVOC_PRODUCT("256", FASTVOC_NAMES0 FASTVOC_NAMES1 FASTVOC_NAMES2 FASTVOC_NAMES3 FASTVOC_NAMES4 FASTVOC_NAMES5 FASTVOC_NAMES6 FASTVOC_NAMES7 FASTVOC_NAMES8 FASTVOC_NAMES9 FASTVOC_NAMES10 FASTVOC_NAMES11 FASTVOC_NAMES12 FASTVOC_NAMES13 FASTVOC_NAMES14 FASTVOC_NAMES15, "%128", "%129", "%130",
                  FASTVOC_EIGHT(s, 0), FASTVOC_EIGHT(s, 8), FASTVOC_EIGHT(s, 16), FASTVOC_EIGHT(s, 24), FASTVOC_EIGHT(s, 32), FASTVOC_EIGHT(s, 40), FASTVOC_EIGHT(s, 48), FASTVOC_EIGHT(s, 56), FASTVOC_EIGHT(s, 64), FASTVOC_EIGHT(s, 72), FASTVOC_EIGHT(s, 80), FASTVOC_EIGHT(s, 88), FASTVOC_EIGHT(s, 96), FASTVOC_EIGHT(s, 104), FASTVOC_EIGHT(s, 112), FASTVOC_EIGHT(s, 120));
}

#undef FASTVOC_PRODUCT
#undef FASTVOC_EIGHT
#undef FASTVOC_NAMES0
#undef FASTVOC_NAMES1
#undef FASTVOC_NAMES2
#undef FASTVOC_NAMES3
#undef FASTVOC_NAMES4
#undef FASTVOC_NAMES5
#undef FASTVOC_NAMES6
#undef FASTVOC_NAMES7
#undef FASTVOC_NAMES8
#undef FASTVOC_NAMES9
#undef FASTVOC_NAMES10
#undef FASTVOC_NAMES11
#undef FASTVOC_NAMES12
#undef FASTVOC_NAMES13
#undef FASTVOC_NAMES14
#undef FASTVOC_NAMES15

#endif

}  // namespace fastvoc::cuda
