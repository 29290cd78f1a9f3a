// What the kernels for any CPU are compiled with: vectors of four floats, which every current architecture has.
#pragma once

#include "std.h"

#define FASTVOC_ISA portable
#define FASTVOC_WIDTH 4
#ifdef __aarch64__
#define FASTVOC_ROWS1 6
#else
#define FASTVOC_ROWS1 3
#endif
#define FASTVOC_ROWS2 0
