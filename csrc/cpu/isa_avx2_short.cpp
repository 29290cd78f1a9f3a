#if defined(__x86_64__)
#include "isa_avx2.h"
#include "short.inc"
#endif
