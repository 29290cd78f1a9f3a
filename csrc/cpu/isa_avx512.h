// What the kernels for x86 with AVX-512 (F, BW, DQ, VL) are compiled with.
#pragma once

#include "std.h"

// After the standard headers, so that their inline functions stay callable on any CPU.
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512")
#define FASTVOC_ISA avx512
#define FASTVOC_WIDTH 16
#define FASTVOC_ROWS1 24
#define FASTVOC_ROWS2 12
