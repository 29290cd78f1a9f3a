#if defined(__x86_64__)
#include "isa_avx512_bf16.h"
#include "short.inc"
#endif
