// istft_head: each frame's inverse transform as a complex one of half its size, then one thread a sample gathers its frames
// in order.
#pragma once

#include "cuda/common.cuh"

namespace fastvoc::cuda {

constexpr int kTransformThreads = 256;
constexpr int kTransformPoints = 1024;  // of a block's frames together, unless one frame has more
constexpr int kMaxPasses = 16;

// `tables`: cosines, sines of 2 pi i / size, window / size, squares of the window, each [size]. `frames` is scratch, float32
// [items, steps, size]. The half-size transform runs in `passes` of these radices.
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
  int passes;
  int radix[kMaxPasses];

  void set_size(int n) {
    size = n;
    passes = 0;
    int rest = n / 2;
    for (int factor = 4; rest > 1; factor = factor == 4 ? 2 : factor == 2 ? 3 : factor + 2) {
      for (; rest % factor == 0; rest /= factor) radix[passes++] = factor;
    }
  }
  __host__ __device__ std::int64_t made(std::int64_t n) const { return (n - 1) * hop + size - left - right; }
  __host__ __device__ int points() const { return size / 2; }
  // Frames of one block: as many as keep its threads busy.
  __host__ __device__ int together() const { return points() < kTransformPoints ? kTransformPoints / points() : 1; }
  int shared() const {
    return 2 * size * static_cast<int>(sizeof(float)) + 2 * together() * (points() + 1) * static_cast<int>(sizeof(float2));
  }
};

__device__ inline float2 times(float2 v, float cosine, float sine) {
  return {v.x * cosine - v.y * sine, v.x * sine + v.y * cosine};
}

// Four sums of a transform's pass (Stockham's): inputs `apart`, outputs `stride` from each other.
__device__ inline void transform_four(const float2* from, float2* to, int apart, int stride, const float* cosines,
                                      const float* sines, int turn) {
  const float2 a = from[0], b = from[apart], c = from[2 * apart], d = from[3 * apart];
  const float2 ac{a.x + c.x, a.y + c.y}, bd{b.x + d.x, b.y + d.y};
  const float2 less{a.x - c.x, a.y - c.y}, side{d.y - b.y, b.x - d.x};  // i (b - d)
  to[0] = {ac.x + bd.x, ac.y + bd.y};
  to[stride] = times({less.x + side.x, less.y + side.y}, cosines[turn], sines[turn]);
  to[2 * stride] = times({ac.x - bd.x, ac.y - bd.y}, cosines[2 * turn], sines[2 * turn]);
  to[3 * stride] = times({less.x - side.x, less.y - side.y}, cosines[3 * turn], sines[3 * turn]);
}

// The k-th of `radix` sums of a pass.
__device__ inline float2 transform_one(const float2* from, int apart, int radix, int k, int circle, const float* cosines,
                                       const float* sines) {
  float2 sum{0.0f, 0.0f};
  for (int r = 0, turn = 0; r < radix; ++r) {
    const float2 v = times(from[r * apart], cosines[turn * (circle / radix)], sines[turn * (circle / radix)]);
    sum = {sum.x + v.x, sum.y + v.y};
    turn += k;
    if (turn >= radix) turn -= radix;
  }
  return sum;
}

template <class T, class Out>
__global__ void istft_frames_kernel(const __grid_constant__ IstftHeadArgs<T, Out> a) {
  const int points = a.points(), bins = points + 1, together = a.together(), thread = static_cast<int>(threadIdx.x);
  const std::int64_t item = blockIdx.y, first = static_cast<std::int64_t>(blockIdx.x) * together;
  const std::int64_t valid = a.lengths ? a.lengths[item] : a.steps;
  if (first >= valid) return;
  float* const cosines = reinterpret_cast<float*>(shared_memory());
  float* const sines = cosines + a.size;
  auto* from = reinterpret_cast<float2*>(sines + a.size);
  float2* to = from + together * bins;
  for (int i = thread; i < 2 * a.size; i += kTransformThreads) cosines[i] = a.tables[i];
  for (int i = thread; i < together * bins; i += kTransformThreads) {
    const int k = i % bins;
    const std::int64_t t = first + i / bins;
    from[i] = {0.0f, 0.0f};
    if (t >= valid) continue;
    const T* at = a.x.data + item * a.x.item + t * a.x.step + k * a.x.channel;
    const float magnitude = expf(widen(at[0]));
    const float bounded = magnitude > a.clip ? a.clip : magnitude;
    float angle = widen(at[bins * a.x.channel]);
    if (a.sine) angle = sinf(angle);
    from[i] = {bounded * cosf(angle), k == 0 || k == points ? 0.0f : bounded * sinf(angle)};
  }
  __syncthreads();
  // Even and odd samples are the real and the imaginary part of one transform of half the size.
  for (int i = thread; i < together * points; i += kTransformThreads) {
    const int k = i % points;
    const float2* spectrum = from + i / points * bins;
    const float2 low = spectrum[k], high = spectrum[points - k];
    const float2 odd = times({low.x - high.x, low.y + high.y}, cosines[k], sines[k]);
    to[i / points * bins + k] = {low.x + high.x - odd.y, low.y - high.y + odd.x};
  }
  for (int pass = 0, stride = 1; pass < a.passes; ++pass) {
    float2* const made = from;
    from = to;
    to = made;
    __syncthreads();
    const int radix = a.radix[pass], apart = points / radix, circle = a.size;
    if (radix == 4) {
      for (int i = thread; i < together * apart; i += kTransformThreads) {
        const int frame = i / apart * bins, j = i % apart, p = j / stride;
        transform_four(from + frame + j, to + frame + j + 3 * p * stride, apart, stride, cosines, sines, 2 * stride * p);
      }
    } else {
      for (int i = thread; i < together * points; i += kTransformThreads) {
        const int frame = i / points * bins, j = i % points, q = j % stride, k = j / stride % radix, p = j / stride / radix;
        const float2 sum = transform_one(from + frame + q + stride * p, apart, radix, k, circle, cosines, sines);
        to[frame + j] = times(sum, cosines[2 * stride * p * k], sines[2 * stride * p * k]);
      }
    }
    stride *= radix;
  }
  __syncthreads();
  for (int i = thread; i < together * points; i += kTransformThreads) {
    const int j = i % points;
    const std::int64_t t = first + i / points;
    if (t >= valid) continue;
    const float2 v = to[i / points * bins + j];
    const float* window = a.tables + 2 * a.size + 2 * j;
    float* frame = a.frames + (item * a.steps + t) * a.size + 2 * j;
    frame[0] = v.x * window[0];
    frame[1] = v.y * window[1];
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
