// istft_head: the inverse transform of each frame by its definition, then one thread a sample gathers its frames in order.
#pragma once

#include "cuda/common.cuh"

namespace fastvoc::cuda {

constexpr int kTransformThreads = 256;

// `tables`: cosines, sines of 2 pi i / size, window / size, squares of the window, each [size]. `frames` is scratch, float32
// [items, steps, size].
template <class T, class Out>
struct IstftHeadArgs {
  View<const T> x;
  Out* y;  // [items, made(steps)]
  const float* tables;
  float* frames;
  const std::int64_t* lengths;
  std::int64_t steps;
  int size;
  int hop;
  std::int64_t left;
  std::int64_t right;
  bool sine;
  float clip;
  float clamp;

  __host__ __device__ std::int64_t made(std::int64_t n) const { return (n - 1) * hop + size - left - right; }
  // Frames of one block: as many as keep its threads busy, a thread a pair of mirrored samples.
  __host__ __device__ int together() const {
    const int pairs = size / 2 + 1;
    return pairs >= kTransformThreads ? 1 : kTransformThreads / pairs;
  }
  int shared() const { return (2 * size + together() * (size + 2)) * static_cast<int>(sizeof(float)); }
};

template <class T, class Out>
__global__ void istft_frames_kernel(const __grid_constant__ IstftHeadArgs<T, Out> a) {
  const int bins = a.size / 2 + 1, together = a.together(), thread = static_cast<int>(threadIdx.x);
  const std::int64_t item = blockIdx.y, first = static_cast<std::int64_t>(blockIdx.x) * together;
  const std::int64_t valid = a.lengths ? a.lengths[item] : a.steps;
  if (first >= valid) return;
  float* const cosines = reinterpret_cast<float*>(shared_memory());
  float* const sines = cosines + a.size;
  float* const spectra = sines + a.size;
  for (int i = thread; i < 2 * a.size; i += kTransformThreads) cosines[i] = a.tables[i];
  for (int i = thread; i < together * bins; i += kTransformThreads) {
    const int k = i % bins;
    const std::int64_t t = first + i / bins;
    if (t >= valid) continue;
    const T* at = a.x.data + item * a.x.item + t * a.x.step + k * a.x.channel;
    const float magnitude = expf(widen(at[0]));
    const float bounded = magnitude > a.clip ? a.clip : magnitude;
    float angle = widen(at[bins * a.x.channel]);
    if (a.sine) angle = sinf(angle);
    // The inner bins count twice: once for their mirror image.
    const float scale = k == 0 || k == bins - 1 ? bounded : 2.0f * bounded;
    spectra[2 * i] = scale * cosf(angle);
    spectra[2 * i + 1] = k == 0 || k == bins - 1 ? 0.0f : scale * sinf(angle);
  }
  __syncthreads();
  for (int i = thread; i < together * bins; i += kTransformThreads) {
    const int j = i % bins;
    const std::int64_t t = first + i / bins;
    if (t >= valid) continue;
    const float* spectrum = spectra + i / bins * (a.size + 2);
    float even = 0.0f, odd = 0.0f;
    for (int k = 0, turn = 0; k < bins; ++k) {
      even = fmaf(spectrum[2 * k], cosines[turn], even);
      odd = fmaf(spectrum[2 * k + 1], sines[turn], odd);
      turn += j;
      if (turn >= a.size) turn -= a.size;
    }
    const float* window = a.tables + 2 * a.size;
    float* frame = a.frames + (item * a.steps + t) * a.size;
    frame[j] = (even - odd) * window[j];
    if (j > 0 && j < a.size / 2) frame[a.size - j] = (even + odd) * window[a.size - j];
  }
}

template <class T, class Out>
__global__ void istft_gather_kernel(const __grid_constant__ IstftHeadArgs<T, Out> a) {
  const std::int64_t s = thread_index(), item = blockIdx.y;
  if (s >= a.made(a.steps)) return;
  const std::int64_t valid = a.lengths ? a.lengths[item] : a.steps;
  float sum = 0.0f;
  if (s < a.made(valid)) {
    const std::int64_t at = s + a.left;
    const float* squares = a.tables + 3 * a.size;
    float envelope = 0.0f;
    for (std::int64_t t = at < a.size ? 0 : (at - a.size) / a.hop + 1; t < valid && t * a.hop <= at; ++t) {
      sum += a.frames[(item * a.steps + t) * a.size + at - t * a.hop];
      envelope += squares[at - t * a.hop];
    }
    sum /= envelope;
    sum = sum > a.clamp ? a.clamp : sum < -a.clamp ? -a.clamp : sum;
  }
  a.y[item * a.made(a.steps) + s] = narrow<Out>(sum);
}

template <class T, class Out>
void istft_head(const IstftHeadArgs<T, Out>& args, std::int64_t items, Stream stream) {
  launch_blocks(istft_frames_kernel<T, Out>, ceil_div(args.steps, args.together()), items, kTransformThreads,
                args.shared(), stream, args);
  launch(istft_gather_kernel<T, Out>, args.made(args.steps), items, stream, args);
}

}  // namespace fastvoc::cuda
