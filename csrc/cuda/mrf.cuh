// The mean of residual blocks as a sequence of convolutions. Everything between them is float32 and time-major.
#pragma once

#include "cuda/conv1d.cuh"
#include "cuda/mrf_args.cuh"

namespace fastvoc::cuda {

// Buffers of a whole batch: the widened input, two states of the block at work, between its two convolutions, the sum.
constexpr int kMrfBuffers = 5;

template <class T>
std::int64_t mrf_scratch(const MrfArgs<T>& a) {
  return kMrfBuffers * a.items * a.channels * a.steps;
}

template <class T>
struct WidenArgs {
  View<const T> x;
  View<float> y;
  const std::int64_t* lengths;
  std::int64_t steps;
  int channels;
};

template <class T>
__global__ void widen_kernel(const __grid_constant__ WidenArgs<T> a) {
  const std::int64_t thread = thread_index(), item = blockIdx.y;
  if (thread >= a.steps * a.channels) return;
  const std::int64_t c = thread % a.channels, t = thread / a.channels;
  const bool valid = t < (a.lengths ? a.lengths[item] : a.steps);
  const float v = valid ? widen(a.x.data[item * a.x.item + c * a.x.channel + t * a.x.step]) : 0.0f;
  a.y.data[item * a.y.item + c * a.y.channel + t * a.y.step] = v;
}

// The weights are packed as for conv1d, the biases in whole panels.
template <class T>
void mrf(const MrfArgs<T>& a, Stream stream) {
  const std::int64_t size = a.items * a.channels * a.steps;
  const auto buffer = [&](int i) { return View<float>{a.scratch + i * size, a.channels * a.steps, 1, a.channels}; };
  const auto read = [](const View<float>& v) { return View<const float>{v.data, v.item, v.channel, v.step}; };
  const View<float> input = buffer(0), inner = buffer(3), sum = buffer(4);
  const View<const float> none{};
  launch(widen_kernel<T>, a.steps * a.channels, a.items, stream,
         WidenArgs<T>{a.x, input, a.lengths, a.steps, a.channels});

  const T* weight = a.weight;
  const T* bias = a.bias;
  std::size_t conv = 0;
  const auto run = [&](const View<float>& from, const View<const float>& residual, const View<const float>& add,
                       const auto& to, float scale) {
    Conv1dArgs<float, T, std::remove_pointer_t<decltype(to.data)>> args{};
    args.x = read(from);
    args.y = to;
    args.weight = weight;
    args.bias = bias;
    args.lengths = a.lengths;
    args.steps = a.steps;
    args.cout = args.cin = a.channels;
    args.kernel = static_cast<int>(a.kernels[conv]);
    args.stride = 1;
    args.pre = a.acts[conv];
    args.residual = residual;
    args.sum = add;
    args.dilation = static_cast<int>(a.dilations[conv]);
    args.left = a.left(conv);
    args.right = a.right(conv);
    args.pad = a.pad == MrfPad::kReflect ? Pad::kReflect : Pad::kZeros;
    args.post = identity();
    args.scale = scale;
    conv1d(args, a.items, stream);
    weight += args.weights();
    bias += padded(a.channels);
    ++conv;
  };

  for (std::size_t block = 0; block < a.layers.size(); ++block) {
    const View<const float> before = block == 0 ? none : read(sum);
    View<float> state = input;
    for (std::int64_t layer = 0; layer < a.layers[block]; ++layer) {
      View<float> from = state;
      if (a.depth == 2) {
        run(state, none, none, inner, 1.0f);
        from = inner;
      }
      const bool last_layer = layer + 1 == a.layers[block];
      if (last_layer && block + 1 == a.layers.size()) {
        run(from, read(state), before, a.y, 1.0f / static_cast<float>(a.layers.size()));
      } else if (last_layer) {
        run(from, read(state), before, sum, 1.0f);
      } else {
        const View<float> next = buffer(state.data == buffer(1).data ? 2 : 1);
        run(from, read(state), none, next, 1.0f);
        state = next;
      }
    }
  }
}

}  // namespace fastvoc::cuda
