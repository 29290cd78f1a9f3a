#if defined(__x86_64__)
#include "isa_avx2.h"
#include "halves.inc"
#endif
