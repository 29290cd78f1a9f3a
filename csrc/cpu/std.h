// Every standard header that the kernels use, and what they share.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#include "args.h"
#include "dispatch.h"
