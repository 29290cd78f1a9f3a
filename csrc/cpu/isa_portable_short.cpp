#include "isa_portable.h"
#include "short.inc"
