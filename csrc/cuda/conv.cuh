// Which kernel convolves: that of tensor cores, or a plain one.
#pragma once

#include <type_traits>

#include "cuda/conv1d.cuh"
#include "cuda/conv_tile.cuh"
#include "cuda/upsample.cuh"

namespace fastvoc::cuda {

// A convolution of a shape with the names of ConvShape; set(args) fills in the tensors. float32 has no tiles.
template <class T, class Shape, class Set>
void convolve(const Shape& shape, std::int64_t items, Stream stream, const Set& set) {
  if (!shape.tiles) {
    Conv1dArgs<T, T, T> args{};
    args.set(shape);
    set(args);
    conv1d(args, items, stream);
  } else if constexpr (!std::is_same_v<T, float>) {
    auto args = conv1d_tile<T>(shape);
    set(args);
    conv_tile(args, items, stream);
  }
}

// How many weights a convolution of this shape has, with those of `further` channels beside its own.
template <class T>
std::int64_t convolution_weights(const ConvShape& shape, int further = 0) {
  const auto count = [&](auto args) {
    args.further = further;
    return args.weights();
  };
  if (shape.tiles) return count(conv1d_tile<T>(shape));
  Conv1dArgs<T, T, T> args{};
  args.set(shape);
  return count(args);
}

// As convolve, for a transposed convolution, of the shape of UpsampleCall.
template <class T, class Shape, class Set>
void convolve_transposed(const Shape& shape, std::int64_t items, Stream stream, const Set& set) {
  if (!shape.tiles) {
    UpsampleArgs<T> args{};
    args.set(shape);
    set(args);
    upsample(args, items, stream);
  } else if constexpr (!std::is_same_v<T, float>) {
    auto args = upsample_tile<T>(shape);
    set(args);
    conv_tile(args, items, stream);
  }
}

}  // namespace fastvoc::cuda
