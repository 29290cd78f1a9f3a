// nsf_source: sines of integer phases and noise by position, merged. A scan over the frames, then one thread a sample.
#pragma once

#include "cuda/common.cuh"
#include "cuda/philox.cuh"

namespace fastvoc::cuda {

enum class NsfKind : int { kSample = 0, kFrameLinear = 1, kFrameNearest = 2 };  // of fastvoc/ops/nsf_source.py
enum class NsfNoise : int { kNone = 0, kNormal = 1, kUniform = 2 };

constexpr int kScanThreads = 256;

// `begin` [items, rows + 1] and `totals` [items, steps] are scratch: where each item begins, and the fundamental's phase
// before each frame. Phases are in units of 2^-64 cycles. All pointers from `state` on may be null.
template <class T>
struct NsfSourceArgs {
  View<const T> f0;
  T* y;  // [items, steps * hop]
  const T* weight;
  const T* bias;
  std::uint64_t* begin;
  std::uint64_t* totals;
  std::uint64_t* state;
  View<const T> phase;  // of one step
  const std::int64_t* seed;
  View<const T> noise;
  const std::int64_t* lengths;
  const std::int64_t* frames;
  std::int64_t steps;
  std::int64_t hop;
  double rate;
  int rows;
  NsfKind kind;
  NsfNoise drawn;
  float amp;
  float noise_std;
  float threshold;

  __device__ std::int64_t valid(std::int64_t item) const { return lengths ? lengths[item] : steps; }
  __device__ std::int64_t made(std::int64_t item) const { return frames ? frames[item] : valid(item); }
  __device__ float hertz(std::int64_t item, std::int64_t frame) const {
    return widen(f0.data[item * f0.item + frame * f0.step]);
  }
};

// Cycles modulo 1; 0 for NaN and infinity.
__device__ inline std::uint64_t phase_units(double cycles) {
  if (!isfinite(cycles)) return 0;
  return static_cast<std::uint64_t>(static_cast<std::int64_t>((cycles - floor(cycles + 0.5)) * 0x1p64));
}

// One block an item: where it begins, the sums before its frames, and the state after those that are made.
template <class T>
__global__ void nsf_scan_kernel(const __grid_constant__ NsfSourceArgs<T> a) {
  auto* sums = reinterpret_cast<std::uint64_t*>(shared_memory());
  const std::int64_t item = blockIdx.y, made = a.made(item), valid = a.valid(item);
  const int thread = static_cast<int>(threadIdx.x);
  const std::uint64_t seed = a.seed ? static_cast<std::uint64_t>(a.seed[item]) : 0;
  std::uint64_t* begin = a.begin + item * (a.rows + 1);
  for (int h = thread; h <= a.rows; h += kScanThreads) {
    std::uint64_t at = 0;
    if (a.state) {
      at = a.state[item * (a.rows + 1) + h];
    } else if (h > 0 && a.phase.data) {
      const float radians = widen(a.phase.data[item * a.phase.item + (h - 1) * a.phase.channel]);
      at = phase_units(static_cast<double>(radians) / 6.283185307179586);
    } else if (h > 1 && a.kind == NsfKind::kSample) {
      at = static_cast<std::uint64_t>(philox(0, static_cast<std::uint32_t>((h - 1) / 4), 1, seed).word[(h - 1) % 4]) << 32;
    }
    begin[h] = at;
  }

  std::uint64_t before = 0;
  for (std::int64_t first = 0; first < valid; first += kScanThreads) {
    const std::int64_t frame = first + thread;
    const std::uint64_t own =
        frame < valid ? phase_units(static_cast<double>(a.hertz(item, frame)) / a.rate) * static_cast<std::uint64_t>(a.hop) : 0;
    sums[thread] = own;
    for (int reach = 1; reach < kScanThreads; reach *= 2) {
      __syncthreads();
      const std::uint64_t left = thread >= reach ? sums[thread - reach] : 0;
      __syncthreads();
      sums[thread] += left;
    }
    __syncthreads();
    if (frame < valid) a.totals[item * a.steps + frame] = before + sums[thread] - own;
    if (a.state && made > 0 && frame == made - 1) {
      const std::uint64_t total = before + sums[thread];
      std::uint64_t* state = a.state + item * (a.rows + 1);
      state[0] = begin[0] + static_cast<std::uint64_t>(made * a.hop);
      for (int h = 1; h <= a.rows; ++h) state[h] = begin[h] + static_cast<std::uint64_t>(h) * total;
    }
    before += sums[kScanThreads - 1];
    __syncthreads();
  }
}

// The phase of the `number`-th multiple of the fundamental at sample k of a frame; `next` is the advance of the frame after.
__device__ inline std::uint64_t phase_at(NsfKind kind, std::uint64_t total, std::uint64_t step, std::uint64_t next,
                                         bool start, std::uint64_t number, std::int64_t k, std::int64_t hop) {
  const std::uint64_t after = total + step * static_cast<std::uint64_t>(hop);
  if (kind == NsfKind::kSample) return number * (total + step * static_cast<std::uint64_t>(k + 1));
  if (kind == NsfKind::kFrameNearest) return number * after;
  // Advances count as 0..1 cycles here, as published; halved, as the weights of samples are odd multiples of 1 / 2 hop.
  if (2 * k + 1 < hop) {
    const std::uint64_t into = start ? 0 : number * step >> 1;
    return number * (start ? after : total) + into * static_cast<std::uint64_t>(2 * k + 1 + hop);
  }
  return number * after + (number * next >> 1) * static_cast<std::uint64_t>(2 * k + 1 - hop);
}

template <class T>
__global__ void nsf_source_kernel(const __grid_constant__ NsfSourceArgs<T> a) {
  const std::int64_t t = thread_index(), item = blockIdx.y;
  if (t >= a.steps * a.hop) return;
  T& y = a.y[item * a.steps * a.hop + t];
  const std::int64_t frame = t / a.hop, k = t % a.hop, valid = a.valid(item);
  if (frame >= a.made(item)) {
    y = narrow<T>(0.0f);
    return;
  }
  const float f0 = a.hertz(item, frame);
  const bool linear = a.kind == NsfKind::kFrameLinear, late = linear && 2 * k + 1 >= a.hop && frame + 1 < valid;
  const float after = late ? a.hertz(item, frame + 1) : 0.0f;
  const bool finite = isfinite(f0) && isfinite(after), voiced = f0 > a.threshold;
  const std::uint64_t step = phase_units(static_cast<double>(f0) / a.rate);
  const std::uint64_t next = late ? phase_units(static_cast<double>(after) / a.rate) : 0;
  const std::uint64_t* begin = a.begin + item * (a.rows + 1);
  const std::uint64_t total = a.totals[item * a.steps + frame];
  const std::uint64_t seed = a.seed ? static_cast<std::uint64_t>(a.seed[item]) : 0;
  const float noise_scale = voiced ? a.noise_std : a.amp / 3.0f;

  float sum = widen(a.bias[0]);
  for (int h = 0; h < a.rows; h += 4) {
    float noise[4] = {};
    if (!a.noise.data && a.drawn != NsfNoise::kNone) {
      const PhiloxWords words = philox(begin[0] + static_cast<std::uint64_t>(t), static_cast<std::uint32_t>(h / 4), 0, seed);
#pragma unroll
      for (int i = 0; i < 4; i += 2) {
        const bool normal = a.drawn == NsfNoise::kNormal;
        const float2 pair = normal ? normal_pair(words.word[i], words.word[i + 1])
                                   : float2{uniform(words.word[i]), uniform(words.word[i + 1])};
        noise[i] = pair.x;
        noise[i + 1] = pair.y;
      }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (h + i >= a.rows) break;
      float source = 0.0f;
      if (voiced) {
        const auto number = static_cast<std::uint64_t>(h + i + 1);
        const bool start = frame == 0 && begin[0] == 0;
        const std::uint64_t phase = begin[h + i + 1] + phase_at(a.kind, total, step, next, start, number, k, a.hop);
        source = sinpif(static_cast<float>(static_cast<std::int32_t>(phase >> 32)) * 0x1p-31f) * a.amp;
      }
      if (a.noise.data) {
        noise[i] = widen(a.noise.data[item * a.noise.item + (h + i) * a.noise.channel + t * a.noise.step]);
      }
      sum += widen(a.weight[h + i]) * (source + noise[i] * noise_scale);
    }
  }
  y = narrow<T>(finite ? tanhf(sum) : nanf(""));
}

template <class T>
void nsf_source(const NsfSourceArgs<T>& args, std::int64_t items, Stream stream) {
  launch_blocks(nsf_scan_kernel<T>, 1, items, kScanThreads, kScanThreads * 8, stream, args);
  launch(nsf_source_kernel<T>, args.steps * args.hop, items, stream, args);
}

}  // namespace fastvoc::cuda
