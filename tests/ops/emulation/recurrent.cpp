// The CUDA lstm behind a C function, for tests that call it through ctypes.
#include <cuda/lstm_layers.cuh>

#include "binding.h"

using namespace emulation;

extern "C" void set_multiprocessors(std::int64_t count) { emulation::multiprocessors = count; }

extern "C" int lstm(int dtype, const void* x, Ints strides, std::int64_t items, std::int64_t steps, Ints lengths,
                    const void* weight, const float* bias, float* h, float* c, void* y, Ints shape) {
  bool ran = false;
  for_dtype(dtype, [&](auto zero) {
    using T = decltype(zero);
    std::vector<unsigned> barriers(static_cast<std::size_t>(items), 77);
    cuda::LstmLayersArgs<T> args{};
    args.layers = static_cast<int>(shape[0]);
    args.inputs = static_cast<int>(shape[1]);
    args.hidden = static_cast<int>(shape[2]);
    args.directions = static_cast<int>(shape[3]);
    args.skip = shape[4] != 0;
    args.x = view<T>(x, strides);
    args.y = rows<T>(y, args.outputs(), steps);
    args.w = static_cast<const T*>(weight);
    args.bias = bias;
    args.h = h;
    args.c = c;
    args.lengths = lengths;
    args.barriers = barriers.data();
    args.items = items;
    args.steps = steps;
    std::vector<float> scratch(static_cast<std::size_t>(cuda::lstm_scratch(args)), NAN);
    args.scratch = scratch.data();
    ran = cuda::lstm(args, 0);
  });
  return ran;
}
