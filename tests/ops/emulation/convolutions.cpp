// The CUDA convolutions behind C functions, for tests that call them through ctypes.
#include <cuda/conv.cuh>
#include <cuda/mrf.cuh>
#include <cuda/mrf_tiles.cuh>

#include "binding.h"

using namespace emulation;

namespace {

template <class T, class Args>
void set_common(Args& args, const void* x, Ints strides, std::int64_t steps, Ints lengths, const void* weight,
                const void* bias, void* y) {
  args.x = view<T>(x, strides);
  args.steps = steps;
  args.lengths = lengths;
  args.weight = static_cast<const T*>(weight);
  args.bias = static_cast<const T*>(bias);
  args.y = rows<T>(y, args.cout, args.made(steps));
}

cuda::Act act(std::int64_t kind, double slope, const float* curves, std::int64_t channels) {
  return {static_cast<cuda::ActKind>(kind), static_cast<float>(slope), curves, curves + cuda::padded(channels)};
}

}  // namespace

extern "C" void set_device(int shared_limit, int backwards) {
  emulation::shared_limit = shared_limit;
  emulation::backwards = backwards != 0;
}

extern "C" void conv1d(int dtype, const void* x, Ints strides, std::int64_t items, std::int64_t steps, Ints lengths,
                       const void* weight, const void* bias, void* y, const void* residual, Ints residual_strides,
                       Ints shape, Ints kinds, const double* slopes, const float* curves) {
  for_dtype(dtype, [&](auto zero) {
    using T = decltype(zero);
    cuda::convolve<T>(shape, items, 0, [&](auto& args) {
      set_common<T>(args, x, strides, steps, lengths, weight, bias, y);
      args.pre = act(kinds[0], slopes[0], curves, args.cin);
      const float* further = args.pre.kind == cuda::ActKind::kSnake ? curves + 2 * cuda::padded(args.cin) : curves;
      args.post = act(kinds[1], slopes[1], further, args.cout);
      if (residual) args.residual = view<T>(residual, residual_strides);
    });
  });
}

extern "C" void upsample(int dtype, const void* x, Ints strides, std::int64_t items, std::int64_t steps, Ints lengths,
                         const void* weight, const void* bias, void* y, Ints shape, Ints kinds, const double* slopes,
                         const float* curves) {
  for_dtype(dtype, [&](auto zero) {
    using T = decltype(zero);
    cuda::convolve_transposed<T>(shape, items, 0, [&](auto& args) {
      set_common<T>(args, x, strides, steps, lengths, weight, bias, y);
      args.pre = act(kinds[0], slopes[0], curves, args.cin);
    });
  });
}

// Returns whether the stage runs in tiles, and runs it where `tiles` says that its weights are packed so.
extern "C" int mrf(int dtype, const void* x, Ints strides, std::int64_t items, std::int64_t steps, Ints lengths,
                   const void* weight, const void* bias, void* y, std::int64_t channels, std::int64_t convs,
                   Ints kernels, Ints dilations, std::int64_t blocks, Ints layers, std::int64_t depth,
                   std::int64_t pad_mode, Ints kinds, const double* slopes, const float* curves, int tiles) {
  bool fits = false;
  for_dtype(dtype, [&](auto zero) {
    using T = decltype(zero);
    const std::int64_t width = tiles ? cuda::tile_width(channels) : cuda::padded(channels);
    cuda::MrfArgs<T> args{view<T>(x, strides),
                          rows<T>(y, channels, steps),
                          static_cast<const T*>(weight),
                          static_cast<const T*>(bias),
                          lengths,
                          nullptr,
                          {kernels, kernels + convs},
                          {dilations, dilations + convs},
                          {layers, layers + blocks},
                          activations({kinds, kinds + convs}, {slopes, slopes + convs}, curves, width),
                          depth,
                          items,
                          steps,
                          static_cast<int>(channels),
                          static_cast<cuda::MrfPad>(pad_mode)};
    if constexpr (!std::is_same_v<T, float>) fits = cuda::has_tile(args);
    if (!y) return;
    const std::int64_t floats = tiles ? cuda::mrf_tiles_scratch(args) : cuda::mrf_scratch(args);
    std::vector<float> scratch(static_cast<std::size_t>(floats), NAN);
    args.scratch = scratch.data();
    if (!tiles) return cuda::mrf(args, 0);
    if constexpr (!std::is_same_v<T, float>) cuda::mrf_tiles(args, 0);
  });
  return fits;
}
