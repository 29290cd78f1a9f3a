// depthwise: activation, zero padding and a filter of its own for every channel, strip by strip.
#pragma once

#include "depthwise_args.h"
#include "strip.h"

namespace fastvoc::FASTVOC_ISA {

// `count` rows of outputs from the rows `x` on, column by column of a vector, whose weights stay in registers where the
// number of taps is known.
template <int kTaps>
void depthwise_rows(const DepthwiseArgs& args, const float* x, float* y, std::int64_t count) {
  const int taps = kTaps ? kTaps : args.kernel;
  const std::ptrdiff_t width = padded(args.channels), apart = args.dilation * width;
  for (std::ptrdiff_t c = 0; c < width; c += FASTVOC_WIDTH) {
    const Vec bias = load(args.bias + c);
    Vec weights[kTaps ? kTaps : 1];
    if constexpr (kTaps > 0) {
      for (int k = 0; k < kTaps; ++k) weights[k] = load(args.weight + k * width + c);
    }
    for (std::int64_t i = 0; i < count; ++i) {
      const float* from = x + i * width + c;
      Vec sum = bias;
      for (int k = 0; k < taps; ++k) {
        const Vec weight = kTaps ? weights[kTaps ? k : 0] : load(args.weight + k * width + c);
        sum += weight * load(from + k * apart);
      }
      store(y + i * width + c, sum);
    }
  }
}

// Output steps [begin, end) of one item.
template <class Element>
void depthwise(const DepthwiseArgs& args, const SourceOf<Element>& source, const SinkOf<Element>& sink, std::int64_t begin,
               std::int64_t end, float* workspace) {
  const std::ptrdiff_t width = padded(args.channels);
  const std::int64_t strip = depthwise_strip(args, end - begin);
  float* const result = workspace + (strip + args.reach()) * width;
  const bool direct = std::is_same_v<Element, float> && width == args.channels;
  Strip<float> in{workspace, width, begin - args.left, begin - args.left};
  for (std::int64_t t = begin; t < end; t += strip) {
    const std::int64_t count = std::min(strip, end - t), until = t + count - args.left + args.reach();
    in.drop_before(t - args.left);
    in.pad_right(std::min<std::int64_t>(until, 0), source.steps, false);
    const std::int64_t valid = std::min(until, source.steps);
    if (in.end < valid) {
      load_rows(source, in.end, valid, nullptr, in.at(in.end), args.pre);
      in.end = valid;
    }
    in.pad_right(until, source.steps, false);
    float* y = result;
    if constexpr (std::is_same_v<Element, float>) {
      if (direct) y = sink.data + t * width;
    }
    if (args.kernel == 7) {
      depthwise_rows<7>(args, in.data, y, count);
    } else {
      depthwise_rows<0>(args, in.data, y, count);
    }
    if (!direct) store_rows(sink, t, result, count);
  }
}

}  // namespace fastvoc::FASTVOC_ISA
