// What the kernels for x86 with AVX2 and FMA are compiled with.
#pragma once

#include "std.h"

// After the standard headers, so that their inline functions stay callable on any CPU.
#pragma GCC target("avx2,fma")
#define FASTVOC_ISA avx2
#define FASTVOC_WIDTH 8
#define FASTVOC_ROWS1 6
#define FASTVOC_ROWS2 0
