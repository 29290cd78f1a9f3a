// rvq_decode: the sum of the codebook entries that a frame's codes name, in the order of the books.
#pragma once

#include "cuda/common.cuh"

namespace fastvoc::cuda {

// `codes` has books in the place of channels; `books` is [books, entries, channels].
template <class T>
struct RvqDecodeArgs {
  View<const std::int64_t> codes;
  View<T> y;
  const T* books;
  const std::int64_t* lengths;
  std::int64_t steps;
  int count;
  int entries;
  int channels;
};

// One thread computes one channel of one step; a code out of range counts as the nearest in it.
template <class T>
__global__ void rvq_decode_kernel(const __grid_constant__ RvqDecodeArgs<T> a) {
  const std::int64_t thread = thread_index(), item = blockIdx.y;
  if (thread >= a.steps * a.channels) return;
  const std::int64_t t = thread / a.channels, c = thread % a.channels;
  float sum = 0.0f;
  if (t < (a.lengths ? a.lengths[item] : a.steps)) {
    for (int k = 0; k < a.count; ++k) {
      const std::int64_t code = a.codes.data[item * a.codes.item + k * a.codes.channel + t * a.codes.step];
      const std::int64_t entry = code < 0 ? 0 : code < a.entries ? code : a.entries - 1;
      sum += widen(a.books[(static_cast<std::int64_t>(k) * a.entries + entry) * a.channels + c]);
    }
  }
  a.y.data[item * a.y.item + c * a.y.channel + t * a.y.step] = narrow<T>(sum);
}

template <class T>
void rvq_decode(const RvqDecodeArgs<T>& args, std::int64_t items, Stream stream) {
  launch(rvq_decode_kernel<T>, args.steps * args.channels, items, stream, args);
}

}  // namespace fastvoc::cuda
