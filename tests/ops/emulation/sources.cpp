// The CUDA kernels of sources, spectra and codes behind C functions, for tests that call them through ctypes.
#include <cuda/istft_head.cuh>
#include <cuda/nsf_source.cuh>
#include <cuda/rvq_decode.cuh>
#include <cuda/rvq_encode.cuh>
#include <cuda/stft.cuh>

#include "binding.h"

using namespace emulation;

extern "C" void rvq_decode(int dtype, const std::int64_t* codes, Ints strides, std::int64_t items, std::int64_t steps,
                           Ints lengths, const void* books, void* y, Ints shape) {
  for_dtype(dtype, [&](auto zero) {
    using T = decltype(zero);
    cuda::rvq_decode(cuda::RvqDecodeArgs<T>{view<std::int64_t>(codes, strides), rows<T>(y, shape[2], steps),
                                            static_cast<const T*>(books), lengths, steps, static_cast<int>(shape[0]),
                                            static_cast<int>(shape[1]), static_cast<int>(shape[2])},
                     items, 0);
  });
}

extern "C" void rvq_encode(const float* x, Ints strides, std::int64_t items, std::int64_t steps, Ints lengths,
                           const float* books, const float* panels, const float* squares, std::int64_t* codes,
                           Ints shape) {
  cuda::rvq_encode(cuda::RvqEncodeArgs<float>{view<float>(x, strides), codes, books, panels, squares, lengths, steps,
                                       static_cast<int>(shape[0]), static_cast<int>(shape[1]),
                                       static_cast<int>(shape[2])},
                   items, 0);
}

extern "C" void stft(int dtype, const void* x, Ints strides, std::int64_t items, std::int64_t steps, Ints lengths,
                     const float* tables, void* y, Ints shape) {
  for_dtype(dtype, [&](auto zero) {
    using T = decltype(zero);
    cuda::StftArgs<T> args{};
    args.set(shape);
    args.x = view<T>(x, strides);
    args.y = static_cast<T*>(y);
    args.tables = tables;
    args.lengths = lengths;
    args.steps = steps;
    cuda::stft(args, items, 0);
  });
}

extern "C" void istft_head(int dtype, const void* x, Ints strides, std::int64_t items, std::int64_t steps, Ints lengths,
                           const float* tables, void* y, Ints shape, const double* bounds) {
  for_dtype(dtype, [&](auto zero) {
    using T = decltype(zero);
    std::vector<float> frames(static_cast<std::size_t>(items * steps * shape[0]), NAN);
    const auto run = [&](auto out) {
      using Out = decltype(out);
      cuda::IstftHeadArgs<T, Out> args{};
      args.x = view<T>(x, strides);
      args.y = static_cast<Out*>(y);
      args.tables = tables;
      args.frames = frames.data();
      args.lengths = lengths;
      args.steps = steps;
      args.size = static_cast<int>(shape[0]);
      args.hop = static_cast<int>(shape[1]);
      args.left = shape[2];
      args.right = shape[3];
      args.sine = shape[4] != 0;
      args.clip = static_cast<float>(bounds[0]);
      args.clamp = static_cast<float>(bounds[1]);
      cuda::istft_head(args, items, 0);
    };
    shape[5] ? run(float{}) : run(T{});
  });
}

extern "C" void nsf_source(int dtype, const void* f0, Ints strides, std::int64_t items, std::int64_t steps,
                           Ints lengths, Ints frames, const void* weight, const void* bias, std::uint64_t* state,
                           const void* phase, Ints seed, const void* noise, void* y, std::int64_t sines, Ints shape,
                           const double* levels) {
  for_dtype(dtype, [&](auto zero) {
    using T = decltype(zero);
    std::vector<std::uint64_t> scratch(static_cast<std::size_t>(items * (sines + 1 + steps)), 0x7ff8dead7ff8dead);
    cuda::NsfSourceArgs<T> args{};
    args.f0 = view<T>(f0, strides);
    args.y = static_cast<T*>(y);
    args.weight = static_cast<const T*>(weight);
    args.bias = static_cast<const T*>(bias);
    args.begin = scratch.data();
    args.totals = scratch.data() + items * (sines + 1);
    args.state = state;
    args.phase = {static_cast<const T*>(phase), sines, 1, 0};
    args.seed = seed;
    args.noise = {static_cast<const T*>(noise), sines * steps * shape[1], steps * shape[1], 1};
    args.lengths = lengths;
    args.frames = frames;
    args.steps = steps;
    args.hop = shape[1];
    args.rate = static_cast<double>(shape[0]);
    args.rows = static_cast<int>(sines);
    args.kind = static_cast<cuda::NsfKind>(shape[2]);
    args.drawn = static_cast<cuda::NsfNoise>(shape[3]);
    args.amp = static_cast<float>(levels[0]);
    args.noise_std = static_cast<float>(levels[1]);
    args.threshold = static_cast<float>(levels[2]);
    cuda::nsf_source(args, items, 0);
  });
}
