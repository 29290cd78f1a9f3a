// lstm: the layers one after the other, in either direction.
#pragma once

#include "cuda/conv1d.cuh"
#include "cuda/lstm.cuh"

namespace fastvoc::cuda {

// `w` holds for every layer and direction the input weights, packed as for conv1d, then the recurrent ones [hidden, 4,
// hidden]; `bias` [4, hidden] of each. `h` and `c` [entries, items, hidden] are the state, null for a beginning of zeros.
// `scratch` has lstm_scratch() floats, `barriers` is memory for as many counters as there are items.
template <class T>
struct LstmLayersArgs {
  View<const T> x;
  View<T> y;
  const T* w;
  const float* bias;
  float* h;
  float* c;
  const std::int64_t* lengths;
  float* scratch;
  unsigned* barriers;
  std::int64_t items;
  std::int64_t steps;
  int layers;
  int inputs;
  int hidden;
  int directions;
  bool skip;

  std::int64_t outputs() const { return static_cast<std::int64_t>(hidden) * directions; }
  // Weights of one direction of a layer with so many input channels.
  std::int64_t weights(std::int64_t channels) const {
    return padded(kGates * hidden) * channels + static_cast<std::int64_t>(kGates) * hidden * hidden;
  }
  std::int64_t all_weights() const {
    return directions * (weights(inputs) + (layers - 1) * weights(outputs()));
  }
};

// Gates, two states and a cell, and what two layers make.
template <class T>
std::int64_t lstm_scratch(const LstmLayersArgs<T>& a) {
  return a.items * (a.steps * kGates * a.hidden + 3 * a.hidden + 2 * a.steps * a.outputs());
}

// Returns false, before anything runs, where the device is too small for the recurrence.
template <class T>
bool lstm(const LstmLayersArgs<T>& a, Stream stream) {
  const std::int64_t state = a.items * a.hidden;
  float* const gates = a.scratch;
  float* const h = gates + a.items * a.steps * kGates * a.hidden;
  float* const between[] = {h + 3 * state, h + 3 * state + a.items * a.steps * a.outputs()};
  const T* w = a.w;
  bool ran = true;

  // One direction of one layer, from `x` to the channels of `y` that are its own.
  const auto run = [&](const auto& x, const auto& y, int channels, int entry, bool reverse, bool skip) {
    using In = std::remove_const_t<std::remove_pointer_t<decltype(x.data)>>;
    using Out = std::remove_pointer_t<decltype(y.data)>;
    Conv1dArgs<In, T, float> project{};
    project.x = {x.data, x.item, x.channel, x.step};
    project.y = {gates, a.steps * kGates * a.hidden, 1, kGates * a.hidden};
    project.weight = w;
    project.lengths = a.lengths;
    project.steps = a.steps;
    project.cout = kGates * a.hidden;
    project.cin = channels;
    project.kernel = project.stride = project.dilation = 1;
    project.pre = project.post = identity();
    conv1d(project, a.items, stream);
    clear_memory(a.barriers, a.items, stream);
    if (a.h) {
      copy_memory(h, a.h + entry * state, state, stream);
      copy_memory(h + 2 * state, a.c + entry * state, state, stream);
    } else {
      clear_memory(h, 3 * state, stream);
    }
    LstmArgs<T, Out> args{};
    args.gates = gates;
    args.bias = a.bias + static_cast<std::int64_t>(entry) * kGates * a.hidden;
    args.w_hh = w + padded(kGates * a.hidden) * channels;
    args.h = h;
    args.c = h + 2 * state;
    args.y = y;
    if (skip) args.skip = {a.x.data + (reverse ? a.hidden * a.x.channel : 0), a.x.item, a.x.channel, a.x.step};
    args.lengths = a.lengths;
    args.barrier = a.barriers;
    args.items = a.items;
    args.steps = a.steps;
    args.hidden = a.hidden;
    args.reverse = reverse;
    ran = ran && lstm_layer(args, stream);
    if (a.h) {
      copy_memory(a.h + entry * state, h, state, stream);
      copy_memory(a.c + entry * state, h + 2 * state, state, stream);
    }
    w += a.weights(channels);
  };

  for (int layer = 0; layer < a.layers && ran; ++layer) {
    const bool last = layer + 1 == a.layers;
    const std::int64_t outputs = a.outputs();
    for (int d = 0; d < a.directions && ran; ++d) {
      const int entry = layer * a.directions + d;
      const View<float> target{between[layer % 2] + d * a.hidden, a.steps * outputs, 1, outputs};
      const View<T> own{a.y.data + d * a.hidden * a.y.channel, a.y.item, a.y.channel, a.y.step};
      const View<float> source{between[(layer + 1) % 2], a.steps * outputs, 1, outputs};
      const int channels = layer ? static_cast<int>(outputs) : a.inputs;
      const bool skip = last && a.skip;
      if (layer == 0 && last) run(a.x, own, channels, entry, d == 1, skip);
      if (layer == 0 && !last) run(a.x, target, channels, entry, d == 1, false);
      if (layer > 0 && last) run(source, own, channels, entry, d == 1, skip);
      if (layer > 0 && !last) run(source, target, channels, entry, d == 1, false);
    }
  }
  return ran;
}

}  // namespace fastvoc::cuda
