// convnext_block: the depthwise convolution with the norm, then two pointwise ones, each one launch.
#pragma once

#include <array>

#include "cuda/conv.cuh"
#include "cuda/layer_norm.cuh"

namespace fastvoc::cuda {

// `norm` has x, y, the depthwise taps and the lengths. `weight` holds the two pointwise convolutions one after the other,
// packed as conv1d packs them, for tensor cores with `tiles`.
template <class T>
struct ConvNextArgs {
  LayerNormArgs<T> norm;
  const T* weight;
  const T* expand_bias;
  const T* project_bias;
  T* scratch;  // [items, steps, channels + hidden]
  int hidden;
  bool tiles;

  ConvShape expand() const { return {hidden, norm.channels, 1, 1, 1, 0, 0, 0, tiles}; }
  ConvShape project() const { return {norm.channels, hidden, 1, 1, 1, 0, 0, 0, tiles}; }
  std::int64_t weights() const {
    return convolution_weights<T>(expand()) + convolution_weights<T>(project());
  }
  std::int64_t scratch_size(std::int64_t items) const { return items * norm.steps * (norm.channels + hidden); }
};

template <class T>
void convnext_block(const ConvNextArgs<T>& a, std::int64_t items, Stream stream) {
  const std::int64_t steps = a.norm.steps, channels = a.norm.channels, hidden = a.hidden;
  const View<T> normed{a.scratch, steps * channels, 1, channels};
  const View<T> inner{a.scratch + items * steps * channels, steps * hidden, 1, hidden};
  LayerNormArgs<T> norm = a.norm;
  norm.y = normed;
  layer_norm(norm, items, stream);
  const auto pointwise = [&](const ConvShape& shape, const View<T>& from, const View<T>& to, const T* weight, const T* bias,
                             const View<const T>& residual, ActKind act) {
    convolve<T>(shape, items, stream, [&](auto& args) {
      args.x = {from.data, from.item, from.channel, from.step};
      args.y = to;
      args.weight = weight;
      args.bias = bias;
      args.residual = residual;
      args.lengths = a.norm.lengths;
      args.steps = steps;
      args.pre = args.post = identity();
      args.post.kind = act;
    });
  };
  const T* second = a.weight + convolution_weights<T>(a.expand());
  pointwise(a.expand(), normed, inner, a.weight, a.expand_bias, View<const T>{}, ActKind::kGelu);
  pointwise(a.project(), inner, a.norm.y, second, a.project_bias, a.norm.x, ActKind::kLeaky);
}

}  // namespace fastvoc::cuda
