// What the glue hands to nsf_source.
#pragma once

#include <cmath>

#include "args.h"
#include "common/philox.h"

namespace fastvoc {

enum class NsfKind : int { kSample = 0, kFrameLinear = 1, kFrameNearest = 2 };
enum class NsfNoise : int { kNone = 0, kNormal = 1, kUniform = 2, kGiven = 3 };

constexpr int kMaxSines = 64;

// One item: F0 per frame, where it begins, and its noise when that is given.
struct NsfItem {
  Source f0;
  const std::uint64_t* phases;  // [rows] before the first sample, in units of 2^-64 cycles
  std::uint64_t position;       // absolute number of the first sample
  std::uint64_t seed;
  const float* noise;  // element (row h, sample s) is noise[h * noise_row + s * noise_step]
  std::ptrdiff_t noise_row;
  std::ptrdiff_t noise_step;
};

struct NsfSourceArgs {
  const float* weight;
  int rows;
  float bias;
  std::int64_t hop;
  double rate;
  NsfKind kind;
  NsfNoise noise;
  float amp;
  float noise_std;
  float threshold;
};

// Cycles -> phase modulo 1 in units of 2^-64 cycles; 0 for NaN and infinity. Twos-complement, so that sums wrap.
inline std::uint64_t phase_units(double cycles) {
  if (!std::isfinite(cycles)) return 0;
  return static_cast<std::uint64_t>(static_cast<std::int64_t>((cycles - std::floor(cycles + 0.5)) * 0x1p64));
}

// The fundamental's advance in a sample of frame `frame`.
inline std::uint64_t advance(const NsfSourceArgs& args, const Source& f0, std::int64_t frame) {
  return phase_units(static_cast<double>(f0.data[frame * f0.step]) / args.rate);
}

// The phase of row h at the start of a signal, drawn from the seed.
inline std::uint64_t start_phase(std::uint64_t seed, int row) {
  const PhiloxWords drawn = philox(0, static_cast<std::uint32_t>(row / 4), 1, seed);
  return static_cast<std::uint64_t>(drawn.word[row % 4]) << 32;
}

}  // namespace fastvoc
