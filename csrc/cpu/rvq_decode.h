// rvq_decode: the sum of the entries that a step's codes name, in the order of the codebooks.
#pragma once

#include "rvq_args.h"
#include "vec.h"

namespace fastvoc::FASTVOC_ISA {

inline void rvq_decode(const RvqArgs& args, const Codes<const std::int64_t>& codes, const Sink& sink, std::int64_t begin,
                       std::int64_t end) {
  const int width = args.channels, whole = width / FASTVOC_WIDTH * FASTVOC_WIDTH;
  const std::ptrdiff_t book = static_cast<std::ptrdiff_t>(args.entries) * width;
  for (std::int64_t t = begin; t < end; ++t) {
    float* y = sink.data + t * width;
    const std::int64_t* code = codes.data + t * codes.step;
    std::copy_n(args.books + *code * width, width, y);
    for (int k = 1; k < args.count; ++k) {
      const float* entry = args.books + k * book + code[k * codes.book] * width;
      for (int c = 0; c < whole; c += FASTVOC_WIDTH) store(y + c, load(y + c) + load(entry + c));
      for (int c = whole; c < width; ++c) y[c] += entry[c];
    }
  }
}

}  // namespace fastvoc::FASTVOC_ISA
