#include "isa_portable.h"
#include "floats.inc"
