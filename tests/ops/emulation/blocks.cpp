// The CUDA kernels of norms and blocks behind C functions, for tests that call them through ctypes.
#include <cuda/adain.cuh>
#include <cuda/convnext_block.cuh>
#include <cuda/seanet_block.cuh>

#include "binding.h"

using namespace emulation;

namespace {

template <class T>
cuda::LayerNormArgs<T> norm_args(const void* x, Ints strides, std::int64_t steps, Ints lengths, const float* weight,
                                 const float* bias, Ints row, void* y, std::int64_t channels, double eps) {
  cuda::LayerNormArgs<T> args{};
  args.x = view<T>(x, strides);
  args.y = rows<T>(y, channels, steps);
  args.weight = weight;
  args.bias = bias;
  args.row = row;
  args.lengths = lengths;
  args.steps = steps;
  args.channels = static_cast<int>(channels);
  args.width = static_cast<int>(cuda::padded(channels));
  args.eps = static_cast<float>(eps);
  return args;
}

}  // namespace

extern "C" void layer_norm(int dtype, const void* x, Ints strides, std::int64_t items, std::int64_t steps, Ints lengths,
                           const float* weight, const float* bias, Ints row, void* y, std::int64_t channels,
                           double eps) {
  for_dtype(dtype, [&](auto zero) {
    cuda::layer_norm(norm_args<decltype(zero)>(x, strides, steps, lengths, weight, bias, row, y, channels, eps), items,
                     0);
  });
}

extern "C" void convnext_block(int dtype, const void* x, Ints strides, std::int64_t items, std::int64_t steps,
                               Ints lengths, const float* depthwise, const float* norm_weight, const float* norm_bias,
                               const void* weight, std::int64_t weights, const void* expand_bias,
                               const void* project_bias, Ints row, void* y, Ints shape, double eps) {
  for_dtype(dtype, [&](auto zero) {
    using T = decltype(zero);
    cuda::ConvNextArgs<T> args{};
    args.norm = norm_args<T>(x, strides, steps, lengths, norm_weight, norm_bias, row, y, shape[0], eps);
    args.norm.taps = depthwise;
    args.norm.kernel = static_cast<int>(shape[2]);
    args.hidden = static_cast<int>(shape[1]);
    args.tiles = shape[3] != 0;
    if (args.weights() != weights) fail("convnext_block: weights of another size");
    args.weight = static_cast<const T*>(weight);
    args.expand_bias = static_cast<const T*>(expand_bias);
    args.project_bias = static_cast<const T*>(project_bias);
    std::vector<T> scratch(static_cast<std::size_t>(args.scratch_size(items)), cuda::narrow<T>(NAN));
    args.scratch = scratch.data();
    cuda::convnext_block(args, items, 0);
  });
}

extern "C" void group_norm_act(int dtype, const void* x, Ints strides, std::int64_t items, std::int64_t steps,
                               Ints lengths, const float* weight, const float* bias, double eps, const void* residual,
                               Ints residual_strides, void* y, std::int64_t channels, Ints kinds, const double* slopes,
                               const float* curves) {
  for_dtype(dtype, [&](auto zero) {
    using T = decltype(zero);
    cuda::GroupNormArgs<T> args{};
    args.x = view<T>(x, strides);
    args.y = rows<T>(y, channels, steps);
    if (residual) args.residual = view<T>(residual, residual_strides);
    args.weight = weight;
    args.bias = bias;
    args.lengths = lengths;
    args.steps = steps;
    args.channels = static_cast<int>(channels);
    args.eps = static_cast<float>(eps);
    args.act = activations({kinds[0]}, {slopes[0]}, curves, cuda::padded(channels))[0];
    std::vector<float> pieces(static_cast<std::size_t>(items * args.max_pieces() * 3), NAN);
    args.pieces = pieces.data();
    cuda::group_norm_act(args, items, 0);
  });
}

extern "C" void adain(int dtype, const void* x, Ints strides, std::int64_t items, std::int64_t steps, Ints lengths,
                      const float* weight, const float* bias, const float* style, Ints style_strides, double eps,
                      void* y, std::int64_t channels, Ints kinds, const double* slopes, const float* curves) {
  for_dtype(dtype, [&](auto zero) {
    using T = decltype(zero);
    cuda::AdaInArgs<T> args{};
    args.x = view<T>(x, strides);
    args.y = rows<T>(y, channels, steps);
    args.weight = weight;
    args.bias = bias;
    args.style = style;
    args.style_item = style_strides[0];
    args.style_value = style_strides[1];
    args.lengths = lengths;
    args.steps = steps;
    args.channels = static_cast<int>(channels);
    args.eps = static_cast<float>(eps);
    args.act = activations({kinds[0]}, {slopes[0]}, curves, cuda::padded(channels))[0];
    std::vector<float> pieces(static_cast<std::size_t>(items * args.max_pieces() * 3 * channels), NAN);
    args.pieces = pieces.data();
    cuda::adain(args, items, 0);
  });
}

extern "C" void seanet_block(int dtype, const void* x, Ints strides, std::int64_t items, std::int64_t steps,
                             Ints lengths, const void* weight1, const void* bias1, const void* weight2,
                             std::int64_t weights2, const void* bias2, const void* shortcut, const void* bias_shortcut,
                             const float* norms, const double* eps, void* y, Ints shape, Ints kinds,
                             const double* slopes, const float* curves) {
  for_dtype(dtype, [&](auto zero) {
    using T = decltype(zero);
    cuda::SeanetArgs<T> args{};
    args.set(shape);
    args.items = items;
    args.steps = steps;
    args.x = view<T>(x, strides);
    args.y = rows<T>(y, args.out, steps);
    args.lengths = lengths;
    args.norms = norms;
    for (int i = 0; i < args.norm_count(); ++i) args.eps[static_cast<std::size_t>(i)] = static_cast<float>(eps[i]);
    args.weight1 = static_cast<const T*>(weight1);
    args.bias1 = static_cast<const T*>(bias1);
    if (cuda::convolution_weights<T>(args.conv2().data(), args.further()) != weights2) {
      fail("seanet_block: weights of another size");
    }
    args.weight2 = static_cast<const T*>(weight2);
    args.bias2 = static_cast<const T*>(bias2);
    args.shortcut = static_cast<const T*>(shortcut);
    args.bias_shortcut = static_cast<const T*>(bias_shortcut);
    const std::int64_t width1 = cuda::padded(args.channels);
    args.act1 = activations({kinds[0]}, {slopes[0]}, curves, width1)[0];
    const float* second = args.act1.kind == cuda::ActKind::kSnake ? curves + 2 * width1 : curves;
    args.act2 = activations({kinds[1]}, {slopes[1]}, second, cuda::padded(args.hidden))[0];
    std::vector<T> scratch(static_cast<std::size_t>(args.scratch_size()), cuda::narrow<T>(NAN));
    std::vector<float> pieces(static_cast<std::size_t>(args.pieces_size()), NAN);
    args.scratch = scratch.data();
    args.pieces = pieces.data();
    cuda::seanet_block(args, 0);
  });
}
