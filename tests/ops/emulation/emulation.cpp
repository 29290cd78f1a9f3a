// The CUDA kernels behind C functions, for tests that call them through ctypes.
#include <cuda/conv1d.cuh>
#include <cuda/mrf.cuh>
#include <cuda/upsample.cuh>

using fastvoc::View;
namespace cuda = fastvoc::cuda;
using Ints = const std::int64_t*;

namespace {

// Strides in torch's order: batch, channel, time.
template <class T>
View<const T> view(const void* data, Ints strides) {
  return {static_cast<const T*>(data), strides[0], strides[1], strides[2]};
}

template <class T>
View<T> rows(void* data, std::int64_t channels, std::int64_t steps) {
  return {static_cast<T*>(data), channels * steps, 1, channels};
}

// dtype: 0 float32, 1 float16, 2 bfloat16.
template <class Run>
void for_dtype(int dtype, const Run& run) {
  if (dtype == 0) run(float{});
  if (dtype == 1) run(cuda::Half{});
  if (dtype == 2) run(cuda::BFloat16{});
}

}  // namespace

extern "C" void conv1d(int dtype, const void* x, Ints strides, std::int64_t items, std::int64_t steps, Ints lengths,
                       const void* weight, const void* bias, void* y, const void* residual, Ints residual_strides,
                       Ints shape, const double* slopes, int tanh) {
  for_dtype(dtype, [&](auto zero) {
    using T = decltype(zero);
    auto args = cuda::conv1d_args<T>(shape, slopes, tanh != 0);
    args.x = view<T>(x, strides);
    args.steps = steps;
    args.lengths = lengths;
    args.weight = static_cast<const T*>(weight);
    args.bias = static_cast<const T*>(bias);
    if (residual) args.residual = view<T>(residual, residual_strides);
    args.y = rows<T>(y, args.cout, args.made(steps));
    cuda::conv1d(args, items, 0);
  });
}

extern "C" void upsample(int dtype, const void* x, Ints strides, std::int64_t items, std::int64_t steps, Ints lengths,
                         const void* weight, const void* bias, void* y, Ints shape, double slope) {
  for_dtype(dtype, [&](auto zero) {
    using T = decltype(zero);
    auto args = cuda::upsample_args<T>(shape, slope);
    args.x = view<T>(x, strides);
    args.steps = steps;
    args.lengths = lengths;
    args.weight = static_cast<const T*>(weight);
    args.bias = static_cast<const T*>(bias);
    args.y = rows<T>(y, args.cout, args.made(steps));
    cuda::upsample(args, items, 0);
  });
}

extern "C" void mrf(int dtype, const void* x, Ints strides, std::int64_t items, std::int64_t steps, Ints lengths,
                    const void* weight, const void* bias, void* y, std::int64_t channels, std::int64_t convs,
                    Ints kernels, Ints dilations, std::int64_t blocks, Ints layers, std::int64_t depth, double slope,
                    int reflect) {
  std::vector<float> scratch(static_cast<std::size_t>(cuda::mrf_scratch(items, channels, steps)), NAN);
  for_dtype(dtype, [&](auto zero) {
    using T = decltype(zero);
    const cuda::MrfArgs<T> args{view<T>(x, strides),
                                rows<T>(y, channels, steps),
                                static_cast<const T*>(weight),
                                static_cast<const T*>(bias),
                                lengths,
                                scratch.data(),
                                {kernels, kernels + convs},
                                {dilations, dilations + convs},
                                {layers, layers + blocks},
                                depth,
                                items,
                                steps,
                                static_cast<int>(channels),
                                static_cast<float>(slope),
                                reflect != 0};
    cuda::mrf(args, 0);
  });
}
