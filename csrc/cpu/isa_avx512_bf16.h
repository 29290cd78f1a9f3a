// What the kernels for x86 with AVX-512, BF16 and VNNI are compiled with; those of floats are the ones for AVX-512.
#pragma once

#include "std.h"

// After the standard headers, so that their inline functions stay callable on any CPU.
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx512vnni,prefer-vector-width=512")
#define FASTVOC_ISA avx512_bf16
#define FASTVOC_WIDTH 16
#define FASTVOC_ROWS1 24
#define FASTVOC_ROWS2 12
#define FASTVOC_BF16 1
