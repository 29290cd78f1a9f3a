// seanet_block: two convolutions, the second over the hidden channels and the input beside them, and norms where there are.
#pragma once

#include <array>

#include "cuda/conv.cuh"
#include "cuda/group_norm_act.cuh"

namespace fastvoc::cuda {

// Weights are packed as conv1d packs them, for tensor cores with `tiles`. Without `norms` those of the shortcut belong to
// `weight2`, and `shortcut` is null; `norms` are scale and shift of each norm, float32. `add_input`: the shortcut is x.
template <class T>
struct SeanetArgs {
  View<const T> x;
  View<T> y;
  const T* weight1;
  const T* bias1;
  const T* weight2;
  const T* bias2;
  const T* shortcut;
  const T* bias_shortcut;
  const float* norms;
  std::array<float, 3> eps;
  const std::int64_t* lengths;
  T* scratch;     // scratch_size()
  float* pieces;  // pieces_size()
  std::int64_t items;
  std::int64_t steps;
  int channels;
  int hidden;
  int out;
  int kernel;
  int dilation;
  int left;
  int right;
  int pad;
  bool tiles;
  bool add_input;
  Act act1;
  Act act2;

  ConvShape conv1() const { return {hidden, channels, kernel, 1, dilation, left, right, pad, tiles}; }
  ConvShape conv2() const { return {out, hidden, 1, 1, 1, 0, 0, 0, tiles}; }
  ConvShape beside() const { return {out, channels, 1, 1, 1, 0, 0, 0, tiles}; }
  int further() const { return norms || add_input ? 0 : channels; }
  int norm_count() const { return norms ? add_input ? 2 : 3 : 0; }
  std::int64_t norm_floats() const { return 2 * (padded(hidden) + (norm_count() - 1) * padded(out)); }
  std::int64_t scratch_size() const { return items * steps * (hidden + (norms ? out : 0)); }
  std::int64_t pieces_size() const { return 3 * items * kMaxPieces; }
};

template <class T>
void seanet_block(const SeanetArgs<T>& a, Stream stream) {
  const View<T> inner{a.scratch, a.steps * a.hidden, 1, a.hidden};
  const View<T> second{a.scratch + a.items * a.steps * a.hidden, a.steps * a.out, 1, a.out};
  const auto read = [](const View<T>& v) { return View<const T>{v.data, v.item, v.channel, v.step}; };
  const auto conv = [&](const ConvShape& shape, const View<const T>& from, const View<T>& to, const T* weight, const T* bias,
                        const Act& act, const View<const T>& beside, const View<const T>& residual) {
    convolve<T>(shape, a.items, stream, [&](auto& args) {
      args.x = from;
      args.y = to;
      args.weight = weight;
      args.bias = bias;
      args.beside = beside;
      args.further = beside.data ? a.further() : 0;
      args.residual = residual;
      args.lengths = a.lengths;
      args.steps = a.steps;
      args.pre = act;
      args.post = identity();
    });
  };
  const float* curve = a.norms;
  int norms = 0;
  const auto norm = [&](const View<T>& from, const View<T>& to, std::int64_t channels, const View<const T>& residual) {
    GroupNormArgs<T> args{};
    args.x = read(from);
    args.y = to;
    args.residual = residual;
    args.weight = curve;
    args.bias = curve + padded(channels);
    args.pieces = a.pieces;
    args.lengths = a.lengths;
    args.steps = a.steps;
    args.channels = static_cast<int>(channels);
    args.eps = a.eps[static_cast<std::size_t>(norms++)];
    args.act = identity();
    curve += 2 * padded(channels);
    group_norm_act(args, a.items, stream);
  };

  const View<const T> none{};
  conv(a.conv1(), a.x, inner, a.weight1, a.bias1, a.act1, none, none);
  if (!a.norms) {
    const View<const T>& beside = a.add_input ? none : a.x;
    conv(a.conv2(), read(inner), a.y, a.weight2, a.bias2, a.act2, beside, a.add_input ? a.x : none);
    return;
  }
  norm(inner, inner, a.hidden, none);
  conv(a.conv2(), read(inner), a.y, a.weight2, a.bias2, a.act2, none, none);
  if (a.add_input) return norm(a.y, a.y, a.out, a.x);
  norm(a.y, a.y, a.out, none);
  conv(a.beside(), a.x, second, a.shortcut, a.bias_shortcut, identity(), none, none);
  norm(second, a.y, a.out, read(a.y));
}

}  // namespace fastvoc::cuda
