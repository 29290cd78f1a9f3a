#include "isa_portable.h"
#include "halves.inc"
