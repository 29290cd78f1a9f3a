// The CUDA kernels of BigVGAN's activation, of UnivNet's convolution and of pitch networks behind C functions.
#include <cuda/conv2d.cuh>
#include <cuda/lvc.cuh>
#include <cuda/snake_aa.cuh>

#include "binding.h"

using namespace emulation;

extern "C" void snake_aa(int dtype, const void* x, Ints strides, std::int64_t items, std::int64_t steps, Ints lengths,
                         const float* alpha, const float* inverse, const float* taps, void* y, std::int64_t channels) {
  for_dtype(dtype, [&](auto zero) {
    using T = decltype(zero);
    cuda::SnakeAaArgs<T> args{};
    args.x = view<T>(x, strides);
    args.y = rows<T>(y, channels, steps);
    args.alpha = alpha;
    args.inverse = inverse;
    args.taps = taps;
    args.lengths = lengths;
    args.steps = steps;
    args.channels = static_cast<int>(channels);
    cuda::snake_aa(args, items, 0);
  });
}

extern "C" void lvc(int dtype, const void* x, Ints strides, std::int64_t items, Ints lengths, const void* kernels,
                    Ints kernel_strides, const void* biases, Ints bias_strides, const void* residual,
                    Ints residual_strides, void* y, Ints shape) {
  for_dtype(dtype, [&](auto zero) {
    using T = decltype(zero);
    cuda::LvcArgs<T> args{};
    args.x = view<T>(x, strides);
    if (residual) args.residual = view<T>(residual, residual_strides);
    args.biases = view<T>(biases, bias_strides);
    args.kernels = static_cast<const T*>(kernels);
    args.kernel_item = kernel_strides[0];
    args.kernel_tap = kernel_strides[1];
    args.kernel_in = kernel_strides[2];
    args.kernel_out = kernel_strides[3];
    args.kernel_frame = kernel_strides[4];
    args.lengths = lengths;
    args.taps = static_cast<int>(shape[0]);
    args.cin = static_cast<int>(shape[1]);
    args.cout = static_cast<int>(shape[2]);
    args.frames = shape[3];
    args.hop = shape[4];
    args.gated = shape[5] != 0;
    args.y = rows<T>(y, args.made(), args.frames * args.hop);
    cuda::lvc(args, items, 0);
  });
}

extern "C" void conv2d(int dtype, const void* x, Ints strides, std::int64_t items, std::int64_t steps, Ints lengths,
                       const void* weight, const void* bias, const void* residual, Ints residual_strides, void* y,
                       Ints shape, double slope) {
  for_dtype(dtype, [&](auto zero) {
    using T = decltype(zero);
    cuda::Conv2dArgs<T> args{};
    Ints value = shape;
    for (int* field : {&args.cout, &args.cin, &args.time, &args.across, &args.bands, &args.pool}) {
      *field = static_cast<int>(*value++);
    }
    args.x = view<T>(x, strides);
    if (residual) args.residual = view<T>(residual, residual_strides);
    args.weight = static_cast<const T*>(weight);
    args.bias = static_cast<const T*>(bias);
    args.lengths = lengths;
    args.steps = steps;
    args.slope = static_cast<float>(slope);
    args.y = rows<T>(y, std::int64_t{args.made()} * args.cout, steps);
    cuda::conv2d(args, items, 0);
  });
}
