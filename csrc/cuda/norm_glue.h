// What torch's views of layer_norm and convnext_block share.
#pragma once

#include "cuda/glue.h"
#include "cuda/layer_norm.cuh"

namespace fastvoc {

// The norm of all channels of x, without its output.
template <class T>
cuda::LayerNormArgs<T> norm_args(const Tensor& x, const Tensor& weight, const Tensor& bias, const MaybeTensor& row,
                                 const MaybeTensor& lengths, double eps) {
  cuda::LayerNormArgs<T> args{};
  args.channels = static_cast<int>(x.size(1));
  args.width = static_cast<int>(cuda::padded(args.channels));
  const std::int64_t floats = (row ? weight.size(0) : 1) * args.width;
  args.x = view<T>(x, args.channels, "x");
  args.weight = packed_as<float>(weight, x, ScalarType::Float, floats, "norm's weight");
  args.bias = packed_as<float>(bias, x, ScalarType::Float, floats, "norm's bias");
  if (row) args.row = packed_as<std::int64_t>(*row, x, ScalarType::Long, x.size(0), "row");
  args.lengths = maybe_lengths(lengths, x);
  args.steps = x.size(2);
  args.eps = static_cast<float>(eps);
  STD_TORCH_CHECK(args.shared() <= cuda::shared_limit(), "layer_norm: ", args.channels, " channels are too many");
  return args;
}

}  // namespace fastvoc
