// Bit strings as .ecdc files hold them: the first bit of a byte is its least significant one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <utility>
#include <vector>

namespace fastvoc::coder {

// The data end before the value that was asked for.
struct Truncated : std::runtime_error {
  Truncated() : std::runtime_error("the data end early") {}
};

class BitWriter {
 public:
  void put(std::uint64_t value, int width) {
    held_ |= value << count_;
    for (count_ += width; count_ >= 8; count_ -= 8, held_ >>= 8) bytes_.push_back(static_cast<std::uint8_t>(held_));
  }

  // Fills the last byte with zeros.
  void align() {
    if (count_ > 0) put(0, 8 - count_);
  }

  // The whole bytes written since the last call.
  std::vector<std::uint8_t> take() { return std::exchange(bytes_, {}); }

 private:
  std::vector<std::uint8_t> bytes_;
  std::uint64_t held_ = 0;
  int count_ = 0;  // bits in held_, fewer than 8 between calls
};

// Reads single bits from one window of bytes after another; what is left of a byte stays for the next window.
class BitReader {
 public:
  void enter(std::span<const std::uint8_t> window) {
    window_ = window;
    used_ = 0;
  }

  int bit() {
    if (count_ == 0) {
      if (used_ == window_.size()) throw Truncated();
      held_ = window_[used_++];
      count_ = 8;
    }
    const int value = held_ & 1;
    held_ >>= 1;
    --count_;
    return value;
  }

  // Bytes of the window that have been begun.
  std::size_t used() const { return used_; }

 private:
  std::span<const std::uint8_t> window_;
  std::size_t used_ = 0;
  unsigned held_ = 0;
  int count_ = 0;
};

inline std::size_t packed_size(std::size_t values, int width) { return (values * width + 7) / 8; }

inline void pack(std::span<const std::uint16_t> values, int width, std::span<std::uint8_t> bytes) {
  std::uint64_t held = 0;
  int count = 0;
  std::size_t written = 0;
  for (const std::uint16_t value : values) {
    held |= static_cast<std::uint64_t>(value) << count;
    for (count += width; count >= 8; count -= 8, held >>= 8) bytes[written++] = static_cast<std::uint8_t>(held);
  }
  if (count > 0) bytes[written] = static_cast<std::uint8_t>(held);
}

// `bytes` holds at least packed_size(values.size(), width) bytes.
inline void unpack(std::span<const std::uint8_t> bytes, int width, std::span<std::uint16_t> values) {
  const std::uint64_t mask = (std::uint64_t{1} << width) - 1;
  std::uint64_t held = 0;
  int count = 0;
  std::size_t read = 0;
  for (std::uint16_t& value : values) {
    for (; count < width; count += 8) held |= static_cast<std::uint64_t>(bytes[read++]) << count;
    value = static_cast<std::uint16_t>(held & mask);
    held >>= width;
    count -= width;
  }
}

}  // namespace fastvoc::coder
