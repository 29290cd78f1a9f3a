// group_norm_act: mean and squares of pieces of an item, then every block combines all pieces in the same order.
#pragma once

#include "cuda/common.cuh"
#include "cuda/reduce.cuh"

namespace fastvoc::cuda {

constexpr int kGroupThreads = 256;
constexpr std::int64_t kPieceValues = 8192;
constexpr std::int64_t kMaxPieces = 1024;

// `weight` and `bias` are float32, `pieces` scratch [items, max_pieces(), 3]: of each
// piece a mean, what the true mean is more, and the sum of squared differences from that.
template <class T>
struct GroupNormArgs {
  View<const T> x;
  View<const T> residual;  // may be null
  View<T> y;
  const float* weight;
  const float* bias;
  float* pieces;
  const std::int64_t* lengths;
  std::int64_t steps;
  int channels;
  float eps;
  Act act;

  // Values of one piece of an item of so many values; nothing but the item counts.
  __device__ std::int64_t piece(std::int64_t values) const {
    return ceil_div(values, kPieceValues * kMaxPieces) * kPieceValues;
  }
  // At least as many as any item has.
  __host__ __device__ std::int64_t max_pieces() const {
    const std::int64_t count = ceil_div(steps * channels, kPieceValues);
    return count < kMaxPieces ? count : kMaxPieces;
  }
};

template <class T>
__global__ void group_pieces_kernel(const __grid_constant__ GroupNormArgs<T> a) {
  float* const shared = reinterpret_cast<float*>(shared_memory());
  const std::int64_t item = blockIdx.y, values = (a.lengths ? a.lengths[item] : a.steps) * a.channels;
  const std::int64_t piece = a.piece(values), begin = static_cast<std::int64_t>(blockIdx.x) * piece;
  const std::int64_t end = begin + piece < values ? begin + piece : values;
  if (begin >= end) return;
  const T* x = a.x.data + item * a.x.item;
  const auto each = [&](const auto& use) {
    for (std::int64_t i = begin + threadIdx.x; i < end; i += kGroupThreads) {
      use(widen(x[i / a.channels * a.x.step + i % a.channels * a.x.channel]));
    }
  };
  const auto count = static_cast<float>(end - begin);
  float sum = 0.0f;
  each([&](float v) { sum += v; });
  const float mean = sum_of_block<kGroupThreads>(shared, sum) / count;
  float off = 0.0f, squares = 0.0f;
  each([&](float v) {
    off += v - mean;
    squares = fmaf(v - mean, v - mean, squares);
  });
  off = sum_of_block<kGroupThreads>(shared, off) / count;
  squares = sum_of_block<kGroupThreads>(shared, squares);
  if (threadIdx.x == 0) {
    float* to = a.pieces + (item * a.max_pieces() + blockIdx.x) * 3;
    to[0] = mean;
    to[1] = off;
    to[2] = squares - off * off * count;
  }
}

template <class T>
__global__ void group_norm_kernel(const __grid_constant__ GroupNormArgs<T> a) {
  float* const shared = reinterpret_cast<float*>(shared_memory());
  const std::int64_t item = blockIdx.y, all = a.steps * a.channels;
  const std::int64_t values = (a.lengths ? a.lengths[item] : a.steps) * a.channels, piece = a.piece(values);
  const std::int64_t begin = static_cast<std::int64_t>(blockIdx.x) * kPieceValues;
  const std::int64_t end = begin + kPieceValues < all ? begin + kPieceValues : all;
  const int count = static_cast<int>(ceil_div(values, piece));
  const float* pieces = a.pieces + item * a.max_pieces() * 3;
  // What means are more than the first keeps its digits where all of them are large.
  const float origin = pieces[0];
  const auto length = [&](int i) {
    const std::int64_t rest = values - i * piece;
    return static_cast<float>(rest < piece ? rest : piece);
  };
  const auto above = [&](int i) { return pieces[3 * i] - origin + pieces[3 * i + 1]; };
  float part = 0.0f;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kGroupThreads) part = fmaf(above(i), length(i), part);
  const float shift = sum_of_block<kGroupThreads>(shared, part) / static_cast<float>(values);
  part = 0.0f;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kGroupThreads) {
    const float off = above(i) - shift;
    part += fmaf(off * off, length(i), pieces[3 * i + 2]);
  }
  const float variance = sum_of_block<kGroupThreads>(shared, part) / static_cast<float>(values);
  const float scale = 1.0f / sqrtf(variance + a.eps);
  for (std::int64_t i = begin + threadIdx.x; i < end; i += kGroupThreads) {
    const std::int64_t t = i / a.channels;
    const int c = static_cast<int>(i % a.channels);
    float v = 0.0f;
    if (i < values) {
      const float x = widen(a.x.data[item * a.x.item + t * a.x.step + c * a.x.channel]);
      v = fmaf((x - origin - shift) * scale, a.weight[c], a.bias[c]);
      if (a.residual.data) v += widen(a.residual.data[item * a.residual.item + t * a.residual.step + c * a.residual.channel]);
      v = activate(a.act, v, c);
    }
    a.y.data[item * a.y.item + t * a.y.step + c * a.y.channel] = narrow<T>(v);
  }
}

template <class T>
void group_norm_act(const GroupNormArgs<T>& args, std::int64_t items, Stream stream) {
  constexpr int kShared = kGroupThreads * static_cast<int>(sizeof(float));
  launch_blocks(group_pieces_kernel<T>, args.max_pieces(), items, kGroupThreads, kShared, stream, args);
  launch_blocks(group_norm_kernel<T>, ceil_div(args.steps * args.channels, kPieceValues), items, kGroupThreads, kShared,
                stream, args);
}

}  // namespace fastvoc::cuda
