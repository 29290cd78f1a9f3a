// The attention of attention_block: its steps' keys and values into rings, then a running softmax over blocks of keys. The
// blocks begin at multiples of their size from the signal's own beginning, and one that a step does not see changes nothing:
// which steps are computed together never changes a bit.
#pragma once

#include "cuda/common.cuh"
#include "cuda/reduce.cuh"

namespace fastvoc::cuda {

constexpr int kAttendKeys = 32;  // of a block, one for each lane of a warp
constexpr int kAttendRows = 4;   // steps of a warp
constexpr int kAttendWarps = 8;
constexpr int kAttendThreads = 32 * kAttendWarps;
constexpr int kAttendSteps = kAttendRows * kAttendWarps;
constexpr int kAttendSizes = 256;  // channels of a head, at most

// The steps [begin, end) of the signals. `mixed` [items, steps, (heads + 2 * kv_heads) * size] has their queries, keys and
// values, `y` [items, steps, heads * size]. Rings [items, kv_heads * size, ring] and [items, ring, kv_heads * size]: the step
// at place p of a signal has entry p % ring; `place`, which may be null, says where the signals' steps begin.
template <class T>
struct AttendArgs {
  T* mixed;
  T* y;
  T* keys;
  T* values;
  const float* frequencies;
  const std::int64_t* place;
  const std::int64_t* lengths;
  std::int64_t steps;
  std::int64_t begin;
  std::int64_t end;
  std::int64_t ring;
  int heads;
  int kv_heads;
  int size;
  int window;
  float scale;

  __host__ __device__ int half() const { return size / 2; }
  __host__ __device__ int kept() const { return kv_heads * size; }
  __host__ __device__ int queries() const { return heads * size; }
  __host__ __device__ int row() const { return queries() + 2 * kept(); }
  __host__ __device__ std::int64_t turns() const { return (end - begin) * (heads + kv_heads) * half(); }
  __device__ std::int64_t first_place(std::int64_t item) const { return place ? place[item] : 0; }
  __device__ std::int64_t last_step(std::int64_t item) const { return lengths ? min(lengths[item], end) : end; }
  // Queries and weights of all steps of a block, and keys or values of a block of them.
  int shared() const {
    return (kAttendSteps * (size + kAttendKeys) + kAttendKeys * size + kAttendKeys) * static_cast<int>(sizeof(float));
  }
};

// A thread turns two channels of a step's query by its angle, or of its key, which goes into the ring with the value.
template <class T>
__global__ void turn_kernel(const __grid_constant__ AttendArgs<T> a) {
  const std::int64_t thread = thread_index(), item = blockIdx.y;
  if (thread >= a.turns()) return;
  const int i = static_cast<int>(thread % a.half()), head = static_cast<int>(thread / a.half() % (a.heads + a.kv_heads));
  const std::int64_t t = a.begin + thread / a.half() / (a.heads + a.kv_heads);
  if (t >= a.last_step(item)) return;
  const std::int64_t at = a.first_place(item) + t;
  const double cycles = static_cast<double>(at) * (static_cast<double>(a.frequencies[i]) / 6.283185307179586);
  const auto rest = static_cast<float>(cycles - floor(cycles + 0.5));
  const float sin = sinpif(2.0f * rest), cos = cospif(2.0f * rest);
  T* const own = a.mixed + (item * a.steps + t) * a.row() + head * a.size + i;
  const float first = widen(own[0]), second = widen(own[a.half()]);
  const float x = first * cos - second * sin, y = second * cos + first * sin;
  if (head < a.heads) {
    own[0] = narrow<T>(x * a.scale);
    own[a.half()] = narrow<T>(y * a.scale);
    return;
  }
  const std::int64_t entry = at % a.ring;
  const int c = (head - a.heads) * a.size + i;
  T* const key = a.keys + (item * a.kept() + c) * a.ring + entry;
  key[0] = narrow<T>(x);
  key[a.half() * a.ring] = narrow<T>(y);
  T* const value = a.values + (item * a.ring + entry) * a.kept() + c;
  value[0] = own[a.kept()];
  value[a.half()] = own[a.kept() + a.half()];
}

__device__ inline float most_of_warp(float v) {
#pragma unroll
  for (int reach = 16; reach > 0; reach /= 2) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, reach));
  return v;
}

// What four steps of a warp need at once.
struct alignas(16) Four {
  float v[kAttendRows];
};

// One head of kAttendSteps steps, of no more than 32 * kParts channels.
template <class T, int kParts>
__global__ void __launch_bounds__(kAttendThreads) attend_kernel(const __grid_constant__ AttendArgs<T> a) {
  const std::int64_t item = blockIdx.y, last_step = a.last_step(item);
  const int head = static_cast<int>(blockIdx.x % a.heads), of = head / (a.heads / a.kv_heads);
  const std::int64_t tile = a.begin + blockIdx.x / a.heads * kAttendSteps;
  if (tile >= last_step) return;
  const int warp = static_cast<int>(threadIdx.x / 32), lane = static_cast<int>(threadIdx.x % 32), size = a.size;
  Four* const queries = reinterpret_cast<Four*>(shared_memory()) + warp * size;
  Four* const weights = reinterpret_cast<Four*>(shared_memory()) + kAttendWarps * size + warp * kAttendKeys;
  float* const block = reinterpret_cast<float*>(shared_memory()) + kAttendSteps * (size + kAttendKeys);
  float* const broken = block + kAttendKeys * size;  // NaN where a value is no finite number

  const std::int64_t begin = a.first_place(item), own = tile + warp * kAttendRows;
  const T* q = a.mixed + (item * a.steps + own) * a.row() + head * size;
  for (int d = lane; d < size; d += 32) {
#pragma unroll
    for (int r = 0; r < kAttendRows; ++r) queries[d].v[r] = own + r < last_step ? widen(q[r * a.row() + d]) : 0.0f;
  }
  const T* const keys = a.keys + (item * a.kept() + of * size) * a.ring;
  const T* const values = a.values + item * a.ring * a.kept() + of * size;
  const std::int64_t oldest = max(begin + tile - (a.window - 1), std::int64_t{0});
  const std::int64_t newest = begin + min(tile + kAttendSteps, last_step) - 1;

  float most[kAttendRows], total[kAttendRows], sum[kParts][kAttendRows];
#pragma unroll
  for (int r = 0; r < kAttendRows; ++r) {
    most[r] = -INFINITY;
    total[r] = 0.0f;
#pragma unroll
    for (int p = 0; p < kParts; ++p) sum[p][r] = 0.0f;
  }
  for (std::int64_t at = oldest / kAttendKeys * kAttendKeys; at <= newest; at += kAttendKeys) {
    __syncthreads();
    const std::int64_t here = at + lane;
    const bool there = here >= oldest && here <= newest;
    for (int d = warp; d < size; d += kAttendWarps) {
      block[d * kAttendKeys + lane] = there ? widen(keys[d * a.ring + here % a.ring]) : 0.0f;
    }
    if (warp == 0) broken[lane] = 0.0f;
    __syncthreads();
    float score[kAttendRows] = {}, kept[kAttendRows];
    for (int d = 0; d < size; ++d) {
      const Four query = queries[d];
      const float key = block[d * kAttendKeys + lane];
#pragma unroll
      for (int r = 0; r < kAttendRows; ++r) score[r] = fmaf(query.v[r], key, score[r]);
    }
    Four weight;
#pragma unroll
    for (int r = 0; r < kAttendRows; ++r) {
      const std::int64_t back = begin + own + r - here;
      if (back < 0 || back >= a.window || !there) score[r] = -INFINITY;
      const float higher = fmaxf(most[r], most_of_warp(score[r]));
      // Of nothing seen so far there is nothing to scale.
      const float base = higher == -INFINITY ? 0.0f : higher;
      weight.v[r] = expf(score[r] - base);
      kept[r] = expf(most[r] - base);
      total[r] = total[r] * kept[r] + weight.v[r];
      most[r] = higher;
    }
    weights[lane] = weight;
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < kAttendKeys * size; i += kAttendThreads) {
      const int j = i / size, d = i % size;
      const std::int64_t from = at + j;
      float v = 0.0f;
      if (from >= oldest && from <= newest) v = widen(values[from % a.ring * a.kept() + d]);
      if (!isfinite(v)) {  // times a weight of 0 it would be NaN, also where it is not seen
        broken[j] = NAN;
        v = 0.0f;
      }
      block[i] = v;
    }
    __syncthreads();
#pragma unroll
    for (int r = 0; r < kAttendRows; ++r) {
      if (score[r] != -INFINITY) total[r] += broken[lane];
#pragma unroll
      for (int p = 0; p < kParts; ++p) sum[p][r] *= kept[r];
    }
    for (int j = 0; j < kAttendKeys; ++j) {
      const Four w = weights[j];
#pragma unroll
      for (int p = 0; p < kParts; ++p) {
        const float v = 32 * p + lane < size ? block[j * size + 32 * p + lane] : 0.0f;
#pragma unroll
        for (int r = 0; r < kAttendRows; ++r) sum[p][r] = fmaf(w.v[r], v, sum[p][r]);
      }
    }
  }
#pragma unroll
  for (int r = 0; r < kAttendRows; ++r) {
    const float scale = 1.0f / sum_of_warp(total[r]);
    if (own + r >= last_step) continue;
    T* const y = a.y + (item * a.steps + own + r) * a.queries() + head * size;
#pragma unroll
    for (int p = 0; p < kParts; ++p) {
      if (32 * p + lane < size) y[32 * p + lane] = narrow<T>(sum[p][r] * scale);
    }
  }
}

template <class T>
void attend(const AttendArgs<T>& args, std::int64_t items, Stream stream) {
  launch(turn_kernel<T>, args.turns(), items, stream, args);
  const std::int64_t blocks = ceil_div(args.end - args.begin, kAttendSteps) * args.heads;
  const auto run = [&](auto kernel) { launch_blocks(kernel, blocks, items, kAttendThreads, args.shared(), stream, args); };
  if (args.size <= 64) return run(attend_kernel<T, 2>);
  if (args.size <= 128) return run(attend_kernel<T, 4>);
  run(attend_kernel<T, kAttendSizes / 32>);
}

}  // namespace fastvoc::cuda
