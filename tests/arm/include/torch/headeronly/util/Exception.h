// Stands in for torch's header: a failed check throws.
#pragma once

#include <sstream>
#include <stdexcept>

namespace stand_in {

template <class... Words>
[[noreturn]] void refuse(const Words&... words) {
  std::ostringstream text;
  (text << ... << words);
  throw std::runtime_error(text.str());
}

}  // namespace stand_in

#define STD_TORCH_CHECK(condition, ...) \
  do {                                  \
    if (!(condition)) ::stand_in::refuse(__VA_ARGS__); \
  } while (false)
