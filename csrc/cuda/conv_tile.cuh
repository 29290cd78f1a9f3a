// A convolution, or a transposed one as a convolution of all its phases, by tensor cores: activations of a tile of time and 32
// input channels at a time in shared memory, each read once for all taps.
#pragma once

#include "cuda/common.cuh"
#include "cuda/warp_tile.cuh"

namespace fastvoc::cuda {

constexpr int kConvRows = 128;     // of a tile
constexpr int kConvColumns = 64;   // output channels, or channels of phases
constexpr int kConvInputs = 32;    // channels at a time
constexpr int kConvThreads = 256;  // four warps along time, two across
constexpr int kConvStride = row_stride(kConvInputs);

template <class T>
using ConvWeights = WeightStream<T, kConvColumns, kConvThreads>;

// Row q and column p * width + c of the product are output step q * phases + p - crop of channel c, where there is one. The
// weights are fragments [ceil(phases * width / 64), ceil(cin / 32) + ceil(further / 32), kernel, 2, 4, 256]; made(n) steps come of n.
template <class T>
struct ConvTileArgs : ConvArgs<T, T, T> {
  using Base = ConvArgs<T, T, T>;
  using Base::steps, Base::cin, Base::further, Base::kernel, Base::stride, Base::dilation;
  int phases;
  int width;  // of a phase
  std::int64_t crop;
  std::int64_t up;  // made(n) = floor((n * up + more) / down) + base
  std::int64_t more;
  std::int64_t down;
  std::int64_t base;

  __host__ __device__ std::int64_t made(std::int64_t n) const { return (n * up + more) / down + base; }
  __host__ __device__ std::int64_t rows() const { return ceil_div(made(steps) + crop, phases); }
  __host__ __device__ int input_rows() const { return (kConvRows - 1) * stride + (kernel - 1) * dilation + 1; }
  __host__ __device__ int blocks_across() const { return static_cast<int>(ceil_div(phases * width, kConvColumns)); }
  __host__ __device__ int own_blocks() const { return static_cast<int>(ceil_div(cin, kConvInputs)); }
  __host__ __device__ int input_blocks() const { return own_blocks() + static_cast<int>(ceil_div(further, kConvInputs)); }
  __host__ __device__ std::int64_t weight_steps() const { return std::int64_t{2} * input_blocks() * kernel; }
  std::int64_t weights() const { return blocks_across() * weight_steps() * ConvWeights<T>::kStep; }
  int shared() const {
    const int inputs = input_rows() * kConvStride * 2, sums = kConvRows * (kConvColumns + 4) * 4;
    return ConvWeights<T>::kBytes + (inputs > sums ? inputs : sums);
  }
};

// act(x) of the rows that a tile reads, channels from `first_channel` to `channels`; zeros beyond.
template <class T>
__device__ void load_inputs(const ConvTileArgs<T>& a, T* to, const View<const T>& from, const Act& act, int first_channel,
                            int channels, std::int64_t first, std::int64_t valid) {
  constexpr int kVectors = kConvInputs / 8;
  const T* x = from.data + static_cast<std::int64_t>(blockIdx.y) * from.item;
  const std::int64_t mirrored = a.mirrored(valid);
  const bool whole = from.channel == 1 && from.step % 8 == 0 && reinterpret_cast<std::uintptr_t>(x) % 16 == 0;
  for (int i = static_cast<int>(threadIdx.x); i < a.input_rows() * kVectors; i += kConvThreads) {
    const int row = i / kVectors, c = first_channel + i % kVectors * 8;
    const std::int64_t at = padded_step(first * a.stride - a.left + row, mirrored, a.pad);
    const std::int64_t t = at < valid ? at : -1;  // a reflection may leave the signal where no output reads it
    Eight<T> v;
    if (t >= 0 && whole && c + 8 <= channels) {
      v = *reinterpret_cast<const Eight<T>*>(x + t * from.step + c);
    } else {
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        v.v[j] = t >= 0 && c + j < channels ? x[(c + j) * from.channel + t * from.step] : narrow<T>(0.0f);
      }
    }
    with_kind(act.kind, [&](auto kind) {
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        const float out = c + j < channels ? activate_as<decltype(kind)::value>(act, widen(v.v[j]), c + j) : 0.0f;
        v.v[j] = narrow<T>(out);
      }
    });
    *reinterpret_cast<Eight<T>*>(to + row * kConvStride + i % kVectors * 8) = v;
  }
}

template <class T>
__global__ void __launch_bounds__(kConvThreads, 2) conv_tile_kernel(const __grid_constant__ ConvTileArgs<T> a) {
  constexpr int kRows = 2, kColumns = 2;  // 16 x 16 tiles of a warp
  const int across = a.blocks_across(), block = static_cast<int>(blockIdx.x % across);
  const std::int64_t item = blockIdx.y, first = static_cast<std::int64_t>(blockIdx.x / across) * kConvRows;
  const std::int64_t valid = a.lengths ? a.lengths[item] : a.steps;
  const std::int64_t outputs = a.made(valid), all = a.made(a.steps);
  T* const ring = reinterpret_cast<T*>(shared_memory());
  T* const inputs = ring + kRingSlots * ConvWeights<T>::kChunk;
  const int warp = static_cast<int>(threadIdx.x / 32), lane = static_cast<int>(threadIdx.x % 32);
  const int row = warp % 4 * 16 * kRows, column = warp / 4 * 16 * kColumns;

  WarpSums<kRows, kColumns> sums;
  clear<kRows, kColumns>(sums);
  const bool any = first * a.phases - a.crop < outputs;
  if (any) {
    ConvWeights<T> weights(ring, a.weight + block * a.weight_steps() * ConvWeights<T>::kStep, a.weight_steps());
    for (int i = 0; i < a.input_blocks(); ++i) {
      const bool own = i < a.own_blocks();
      const int channel = (own ? i : i - a.own_blocks()) * kConvInputs;
      __syncthreads();
      load_inputs(a, inputs, own ? a.x : a.beside, own ? a.pre : identity(), channel, own ? a.cin : a.further, first, valid);
      __syncthreads();
      for (int tap = 0; tap < a.kernel; ++tap) {
        int rows[kRows];
#pragma unroll
        for (int m = 0; m < kRows; ++m) {
          rows[m] = ((row + 16 * m + lane % 16) * a.stride + tap * a.dilation) * kConvStride + lane / 16 * 8;
        }
#pragma unroll
        for (int k = 0; k < kConvInputs / 16; ++k) {
          add_step<T, kRows, kColumns>(sums, inputs + 16 * k, rows, weights.next() + column / 16 * kFragment);
        }
      }
    }
    __syncthreads();
  }

  // The sums go through shared memory, so that rows leave in one piece.
  float* const staged = reinterpret_cast<float*>(inputs);
  constexpr int kStaged = kConvColumns + 4;
  each_pair<kRows, kColumns>([&](int r, int c, int m, int n, int k) {
    *reinterpret_cast<float2*>(staged + (row + r) * kStaged + column + c) = {sums[m][n][k], sums[m][n][k + 1]};
  });
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < kConvRows * kConvColumns; i += kConvThreads) {
    const int r = i / kConvColumns, n = block * kConvColumns + i % kConvColumns, phase = n / a.width, c = n % a.width;
    const std::int64_t t = (first + r) * a.phases + phase - a.crop;
    if (phase >= a.phases || c >= a.cout || t < 0 || t >= all) continue;
    float v = 0.0f;
    if (t < outputs) {
      v = staged[r * kStaged + i % kConvColumns] + (a.bias ? widen(a.bias[c]) : 0.0f);
      if (a.residual.data) v += widen(a.residual.data[item * a.residual.item + c * a.residual.channel + t * a.residual.step]);
      v = activate(a.post, v, c);
    }
    a.y.data[item * a.y.item + c * a.y.channel + t * a.y.step] = narrow<T>(v);
  }
}

template <class T>
void conv_tile(const ConvTileArgs<T>& args, std::int64_t items, Stream stream) {
  const std::int64_t blocks = ceil_div(args.rows(), kConvRows) * args.blocks_across();
  launch_blocks(conv_tile_kernel<T>, blocks, items, kConvThreads, args.shared(), stream, args);
}

// The tile's arguments for a convolution, which lack the tensors.
template <class T, class Shape>
ConvTileArgs<T> conv1d_tile(const Shape& shape) {
  ConvTileArgs<T> args{};
  args.set(shape);
  args.phases = 1;
  args.width = static_cast<int>(padded(args.cout));
  args.up = args.base = 1;
  args.more = args.left + args.right - args.dilation * (args.kernel - 1) - 1;
  args.down = args.stride;
  return args;
}

// The same for a transposed convolution, whose phases have ceil(kernel / stride) taps, the last of them first.
template <class T, class Shape>
ConvTileArgs<T> upsample_tile(const Shape& shape) {
  ConvTileArgs<T> args{};
  args.cout = shape.cout;
  args.cin = shape.cin;
  args.kernel = static_cast<int>(ceil_div(shape.kernel, shape.stride));
  args.stride = args.dilation = 1;
  args.left = args.kernel - 1;
  args.post = identity();
  args.phases = shape.stride;
  args.width = static_cast<int>(padded(args.cout));
  args.crop = shape.left;
  args.up = shape.stride;
  args.more = shape.kernel - shape.stride - shape.left - shape.right;
  args.down = 1;
  return args;
}

}  // namespace fastvoc::cuda
