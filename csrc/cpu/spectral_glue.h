// What the torch side of stft and istft_head share.
#pragma once

#include "fft_args.h"
#include "glue.h"

namespace fastvoc {

// Checks a packed transform of `size` numbers: `radices` int64, and `tables` with split factors, twiddles, then `rest` more
// floats, whose begin it returns.
inline const float* read_plan(const Ints& radices, int size, const Tensor& tables, int64_t rest, RealFft& fft) {
  STD_TORCH_CHECK(size >= 2 && size % 2 == 0, "n_fft: expected an even number, got ", size);
  STD_TORCH_CHECK(radices.size() <= kMaxPasses, "n_fft: expected up to ", kMaxPasses, " passes");
  fft.size = size;
  fft.passes = as_int(static_cast<int64_t>(radices.size()));
  int64_t points = fft.half(), twiddles = 0;
  for (std::size_t i = 0; i < radices.size(); ++i) {
    const int64_t r = radices[i];
    STD_TORCH_CHECK((r >= 2 && r <= 5) || r == 8, "n_fft: expected passes of radix 2, 3, 4, 5 or 8, got ", r);
    STD_TORCH_CHECK(points % r == 0, "n_fft: the passes do not fit ", size);
    fft.radices[i] = as_int(r);
    points /= r;
    twiddles += 2 * (points - 1) * (r - 1);
  }
  STD_TORCH_CHECK(points == 1, "n_fft: the passes do not fit ", size);
  const int64_t split = 2 * (size / 4 + 1);
  fft.split = packed(tables, split + twiddles + rest, "tables");
  fft.twiddles = fft.split + split;
  return fft.twiddles + twiddles;
}

}  // namespace fastvoc
