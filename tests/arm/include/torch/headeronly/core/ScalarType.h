// Stands in for torch's header, with the same numbers.
#pragma once

#include <cstdint>

namespace torch::headeronly {

enum class ScalarType : std::int8_t { Byte = 0, Char = 1, Short = 2, Int = 3, Long = 4, Half = 5, Float = 6, Double = 7, BFloat16 = 15 };

}  // namespace torch::headeronly
