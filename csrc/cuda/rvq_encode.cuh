// rvq_encode: a block takes a few frames through all books, its threads share the entries of each.
#pragma once

#include "cuda/common.cuh"
#include "cuda/reduce.cuh"

namespace fastvoc::cuda {

constexpr int kEncodeThreads = 256;
constexpr int kEncodeFrames = kEncodeThreads / 32;

// `books` [books, entries, channels]; `panels` the same in panels [books, ceil(entries / 16), channels, 16]; `squares` [books,
// padded entries] are |entry|^2.
template <class T>
struct RvqEncodeArgs {
  View<const T> x;
  std::int64_t* codes;  // [items, count, steps]
  const float* books;
  const float* panels;
  const float* squares;
  const std::int64_t* lengths;
  std::int64_t steps;
  int count;
  int entries;
  int channels;

  // What is left of the frames, its squares, and each thread's best entry with its distance.
  int shared() const {
    return kEncodeFrames * (channels + 1 + 2 * kEncodeThreads) * static_cast<int>(sizeof(float));
  }
};

// Of two entries the nearer, the first of equals.
__device__ inline bool nearer(float distance, int entry, float other, int other_entry) {
  return distance > other || (distance == other && entry < other_entry);
}

template <class T>
__global__ void rvq_encode_kernel(const __grid_constant__ RvqEncodeArgs<T> a) {
  const int thread = static_cast<int>(threadIdx.x), width = static_cast<int>(padded(a.entries));
  const std::int64_t item = blockIdx.y, first = static_cast<std::int64_t>(blockIdx.x) * kEncodeFrames;
  const std::int64_t valid = a.lengths ? a.lengths[item] : a.steps;
  float* const left = reinterpret_cast<float*>(shared_memory());  // [channels, frames]
  float* const square = left + kEncodeFrames * a.channels;
  float* const distances = square + kEncodeFrames;  // [frames, threads]
  int* const entries = reinterpret_cast<int*>(distances + kEncodeFrames * kEncodeThreads);
  std::int64_t* codes = a.codes + item * a.count * a.steps;
  if (first >= valid) {
    for (int i = thread; i < a.count * kEncodeFrames; i += kEncodeThreads) {
      const std::int64_t t = first + i % kEncodeFrames;
      if (t < a.steps) codes[i / kEncodeFrames * a.steps + t] = 0;
    }
    return;
  }
  for (int i = thread; i < kEncodeFrames * a.channels; i += kEncodeThreads) {
    const std::int64_t t = first + i % kEncodeFrames, c = i / kEncodeFrames;
    left[i] = t < valid ? widen(a.x.data[item * a.x.item + c * a.x.channel + t * a.x.step]) : 0.0f;
  }
  for (int book = 0; book < a.count; ++book) {
    __syncthreads();
    float sum = 0.0f;  // of the frame of this warp
    for (int c = thread % 32; c < a.channels; c += 32) {
      const float v = left[c * kEncodeFrames + thread / 32];
      sum = fmaf(v, v, sum);
    }
    sum = sum_of_warp(sum);
    if (thread % 32 == 0) square[thread / 32] = sum;
    __syncthreads();
    float best[kEncodeFrames];
    int nearest[kEncodeFrames];
#pragma unroll
    for (int i = 0; i < kEncodeFrames; ++i) {
      best[i] = -INFINITY;
      nearest[i] = 0;
    }
    for (int entry = thread; entry < a.entries; entry += kEncodeThreads) {
      const float* at = a.panels + static_cast<std::int64_t>(book) * width * a.channels +
                        static_cast<std::int64_t>(entry / kPanel) * a.channels * kPanel + entry % kPanel;
      float dot[kEncodeFrames] = {};
      for (int c = 0; c < a.channels; ++c) {
        const float w = at[c * kPanel];
#pragma unroll
        for (int i = 0; i < kEncodeFrames; ++i) dot[i] = fmaf(w, left[c * kEncodeFrames + i], dot[i]);
      }
      const float entry_square = a.squares[static_cast<std::int64_t>(book) * width + entry];
#pragma unroll
      for (int i = 0; i < kEncodeFrames; ++i) {
        const float distance = -(square[i] - 2.0f * dot[i] + entry_square);
        if (distance > best[i]) {
          best[i] = distance;
          nearest[i] = entry;
        }
      }
    }
#pragma unroll
    for (int i = 0; i < kEncodeFrames; ++i) {
      distances[i * kEncodeThreads + thread] = best[i];
      entries[i * kEncodeThreads + thread] = nearest[i];
    }
    for (int reach = kEncodeThreads / 2; reach > 0; reach /= 2) {
      __syncthreads();
      for (int i = thread; i < kEncodeFrames * reach; i += kEncodeThreads) {
        const int to = i / reach * kEncodeThreads + i % reach, from = to + reach;
        if (nearer(distances[from], entries[from], distances[to], entries[to])) {
          distances[to] = distances[from];
          entries[to] = entries[from];
        }
      }
    }
    __syncthreads();
    if (thread < kEncodeFrames && first + thread < a.steps) {
      codes[book * a.steps + first + thread] = first + thread < valid ? entries[thread * kEncodeThreads] : 0;
    }
    for (int i = thread; i < kEncodeFrames * a.channels; i += kEncodeThreads) {
      const std::int64_t entry = static_cast<std::int64_t>(book) * a.entries + entries[i % kEncodeFrames * kEncodeThreads];
      left[i] -= a.books[entry * a.channels + i / kEncodeFrames];
    }
  }
}

template <class T>
void rvq_encode(const RvqEncodeArgs<T>& args, std::int64_t items, Stream stream) {
  launch_blocks(rvq_encode_kernel<T>, ceil_div(args.steps, kEncodeFrames), items, kEncodeThreads, args.shared(), stream,
                args);
}

}  // namespace fastvoc::cuda
