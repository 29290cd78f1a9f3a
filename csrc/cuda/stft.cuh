// stft: the transform of each frame by its definition, the mirrored samples of a frame folded first.
#pragma once

#include "cuda/common.cuh"

namespace fastvoc::cuda {

constexpr int kStftThreads = 256;

// `tables`: cosines and sines of 2 pi i / size, and the window, each [size].
template <class T>
struct StftArgs {
  View<const T> x;
  T* y;  // [items, made(steps), size + 2]
  const float* tables;
  const std::int64_t* lengths;
  std::int64_t steps;
  int size;
  int hop;
  int left;
  int right;
  Pad pad;
  bool polar;
  bool first_is_real;

  __host__ __device__ std::int64_t made(std::int64_t n) const { return (n + left + right - size) / hop + 1; }
  // Frames of one block: as many as keep its threads busy, a thread a bin.
  __host__ __device__ int together() const {
    const int bins = size / 2 + 1;
    return bins >= kStftThreads ? 1 : kStftThreads / bins;
  }
  int shared() const { return (2 + together()) * size * static_cast<int>(sizeof(float)); }
};

// The angle of a real number: 0 or +pi.
__device__ inline float real_angle(float v) { return v < 0.0f ? 3.14159274f : v == v ? 0.0f : v; }

template <class T>
__global__ void stft_kernel(const __grid_constant__ StftArgs<T> a) {
  const int half = a.size / 2, bins = half + 1, together = a.together(), thread = static_cast<int>(threadIdx.x);
  const std::int64_t item = blockIdx.y, first = static_cast<std::int64_t>(blockIdx.x) * together;
  const std::int64_t steps = a.lengths ? a.lengths[item] : a.steps, valid = a.made(steps), all = a.made(a.steps);
  float* const cosines = reinterpret_cast<float*>(shared_memory());
  float* const sines = cosines + a.size;
  float* const frames = sines + a.size;  // of each the sums of samples j and size - j, then their differences
  const float* window = a.tables + 2 * a.size;
  const T* x = a.x.data + item * a.x.item;
  for (int i = thread; i < 2 * a.size; i += kStftThreads) cosines[i] = a.tables[i];
  for (int i = thread; i < together * bins; i += kStftThreads) {
    const int j = i % bins;
    const std::int64_t t = first + i / bins;
    if (t >= valid) continue;
    const auto sample = [&](int n) {
      const std::int64_t at = padded_step(t * a.hop + n - a.left, steps, a.pad);
      return at < 0 ? 0.0f : window[n] * widen(x[at * a.x.step]);
    };
    float* frame = frames + i / bins * a.size;
    const float v = sample(j);
    if (j == 0 || j == half) {
      frame[j] = v;
    } else {
      const float mirror = sample(a.size - j);
      frame[j] = v + mirror;
      frame[a.size - j] = v - mirror;
    }
  }
  __syncthreads();
  for (int i = thread; i < together * bins; i += kStftThreads) {
    const int k = i % bins;
    const std::int64_t t = first + i / bins;
    if (t >= all) continue;
    float real = 0.0f, imaginary = 0.0f;
    if (t < valid) {
      const float* frame = frames + i / bins * a.size;
      real = k % 2 ? frame[0] - frame[half] : frame[0] + frame[half];
      for (int j = 1, turn = k; j < half; ++j) {
        real = fmaf(frame[j], cosines[turn], real);
        imaginary = fmaf(-frame[a.size - j], sines[turn], imaginary);
        turn += k;
        if (turn >= a.size) turn -= a.size;
      }
      if (k == 0 || k == half) imaginary = 0.0f;
      if (a.polar) {
        const bool is_real = imaginary == 0.0f || (t == 0 && a.first_is_real);
        const float angle = is_real ? real_angle(real) : atan2f(imaginary, real);
        real = hypotf(real, imaginary);
        imaginary = angle;
      }
    }
    T* row = a.y + (item * all + t) * (a.size + 2);
    row[k] = narrow<T>(real);
    row[bins + k] = narrow<T>(imaginary);
  }
}

template <class T>
void stft(const StftArgs<T>& args, std::int64_t items, Stream stream) {
  launch_blocks(stft_kernel<T>, ceil_div(args.made(args.steps), args.together()), items, kStftThreads, args.shared(),
                stream, args);
}

}  // namespace fastvoc::cuda
