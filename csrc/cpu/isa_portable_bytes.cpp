#include "isa_portable.h"
#include "bytes.inc"
