// Arithmetic coder of EnCodec's bit streams (Defossez et al. 2022, arXiv 2210.13438, section 3.3; the file layout is that
// of github.com/facebookresearch/encodec).
//
// The code of a sequence is one long binary number, `low`. A digit is appended whenever the interval that starts there is
// narrower than 2^24; each symbol then moves `low` up to the begin of its share, and the interval narrows to that share.
#pragma once

#include <cstdint>
#include <span>
#include <stdexcept>
#include <vector>

#include "bits.h"

namespace fastvoc::coder {

constexpr int kTotalBits = 24;
constexpr std::uint64_t kTotal = std::uint64_t{1} << kTotalBits;

// Where a symbol's share lies in an interval: its distance from the interval's begin, and its width.
struct Share {
  std::uint64_t begin, width;
};

// `cdf` holds the end of each symbol's share of 2^24; one of 2 or more is never empty. `width` is from 2^24 to 2^25 - 1.
inline Share share(std::span<const std::uint32_t> cdf, std::size_t symbol, std::uint64_t width) {
  const std::uint64_t first = symbol == 0 ? 0 : cdf[symbol - 1], end = cdf[symbol];
  if (end < first + 2 || end > kTotal) throw std::invalid_argument("cdf: expected steps of at least 2, up to 2^24");
  const std::uint64_t begin = (first * width + kTotal - 1) >> kTotalBits;
  return {begin, ((end - 1) * width >> kTotalBits) - begin + 1};
}

class Encoder {
 public:
  void push(std::size_t symbol, std::span<const std::uint32_t> cdf) {
    if (symbol >= cdf.size()) throw std::invalid_argument("symbols: outside of the table of probabilities");
    for (; width_ < kTotal; width_ <<= 1) append_digit();
    const Share s = share(cdf, symbol, width_);
    width_ = s.width;
    window_ += s.begin;
    if (window_ >> kWindow) carry();
  }

  // The bytes that no later symbol can change and that have not been taken yet.
  std::vector<std::uint8_t> take() { return bits_.take(); }

  // Ends the code with all digits of `low`, then zeros up to a whole byte. The next symbol begins another code.
  std::vector<std::uint8_t> finish() {
    settle();
    for (int i = digits_ - 1; i >= 0; --i) bits_.put(window_ >> i & 1, 1);
    window_ = 0;
    width_ = 1;
    digits_ = 0;
    bits_.align();
    return bits_.take();
  }

 private:
  static constexpr int kWindow = 32;

  void append_digit() {
    window_ <<= 1;
    if (digits_ < kWindow) {
      ++digits_;
      return;
    }
    const std::uint64_t left = window_ >> kWindow;
    window_ &= (std::uint64_t{1} << kWindow) - 1;
    if (left == 1) {
      ++ones_;
    } else {
      settle();
      zero_ = true;
    }
  }

  // A carry turns 0111 into 1000. It finds a zero always: the interval was too narrow to reach beyond its next digit.
  void carry() {
    window_ &= (std::uint64_t{1} << kWindow) - 1;
    bits_.put(1, 1);
    zero_ = ones_ > 0;
    for (; ones_ > 1; --ones_) bits_.put(0, 1);
    ones_ = 0;
  }

  void settle() {
    if (zero_) bits_.put(0, 1);
    for (; ones_ > 0; --ones_) bits_.put(1, 1);
    zero_ = false;
  }

  BitWriter bits_;
  // `low`: the digits in bits_, then a zero if there is one, some ones, and the last up to 32 digits.
  bool zero_ = false;
  std::uint64_t ones_ = 0;
  std::uint64_t window_ = 0;
  int digits_ = 0;
  std::uint64_t width_ = 1;
};

// No symbol of the table has this code: the data are damaged, or were made with other probabilities.
struct Impossible : std::runtime_error {
  Impossible() : std::runtime_error("no symbol has this code") {}
};

class Decoder {
 public:
  // Gives the decoder the next bytes to read; `used` of them are begun by the symbols pulled since.
  void enter(std::span<const std::uint8_t> window) { bits_.enter(window); }
  std::size_t used() const { return bits_.used(); }

  std::size_t pull(std::span<const std::uint32_t> cdf) {
    for (; width_ < kTotal; width_ <<= 1) offset_ = offset_ << 1 | bits_.bit();
    std::size_t first = 0, last = cdf.size();
    while (first < last) {
      const std::size_t middle = first + (last - first) / 2;
      const Share s = share(cdf, middle, width_);
      if (offset_ < s.begin) {
        last = middle;
      } else if (offset_ - s.begin >= s.width) {
        first = middle + 1;
      } else {
        offset_ -= s.begin;
        width_ = s.width;
        return middle;
      }
    }
    throw Impossible();
  }

 private:
  BitReader bits_;
  std::uint64_t offset_ = 0;  // of the code from the begin of the interval
  std::uint64_t width_ = 1;
};

}  // namespace fastvoc::coder
