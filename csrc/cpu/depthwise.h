// depthwise: activation, zero padding and a filter of its own for every channel, strip by strip.
#pragma once

#include "depthwise_args.h"
#include "strip.h"

namespace fastvoc::FASTVOC_ISA {

// `count` sums of the channels from c on, of rows of `width` from x on: emit(i, sum). Weights are rows of that width, too, and
// stay in registers where the number of taps is known.
template <int kTaps, class Element, class Emit>
inline __attribute__((always_inline)) void depthwise_sums(const Element* x, std::ptrdiff_t width, int taps, int dilation,
                                                          const Element* w, const float* bias, std::ptrdiff_t c,
                                                          std::int64_t count, const Emit& emit) {
  const Vec first = load(bias + c);
  Vec weights[kTaps ? kTaps : 1];
#pragma GCC unroll 8
  for (int k = 0; k < kTaps; ++k) weights[k] = load(w + k * width + c);
  for (std::int64_t i = 0; i < count; ++i) {
    const Element* from = x + i * width + c;
    Vec sum = first;
#pragma GCC unroll 8
    for (int k = 0; k < (kTaps ? kTaps : taps); ++k) {
      sum += (kTaps ? weights[kTaps ? k : 0] : load(w + k * width + c)) * load(from + k * dilation * width);
    }
    emit(i, sum);
  }
}

// The same with the common kernel as a constant.
template <class Element, class Emit>
inline __attribute__((always_inline)) void depthwise_sums(int taps, const Element* x, std::ptrdiff_t width, int dilation,
                                                          const Element* w, const float* bias, std::ptrdiff_t c,
                                                          std::int64_t count, const Emit& emit) {
  if (taps == 7) return depthwise_sums<7>(x, width, taps, dilation, w, bias, c, count, emit);
  depthwise_sums<0>(x, width, taps, dilation, w, bias, c, count, emit);
}

// `count` activated rows of the channels of so many panels, to rows of `width`.
template <class Element>
void depthwise_rows(const Element* x, std::ptrdiff_t width, int taps, int dilation, const Filter<Element>& filter,
                    const Act& activation, Element* y, std::int64_t count, int panel, int last) {
  constexpr std::int64_t many = 32;
  alignas(64) float sums[many * FASTVOC_WIDTH];
  for (std::int64_t t = 0; t < count; t += many, x += many * width, y += many * width) {
    const std::int64_t rows = std::min(many, count - t);
    for (std::ptrdiff_t c = panel * kPanel; c < last * kPanel; c += FASTVOC_WIDTH) {
      depthwise_sums(taps, x, width, dilation, filter.weight, filter.bias, c, rows,
                     [&](std::int64_t i, Vec sum) { store(sums + i * FASTVOC_WIDTH, sum); });
      if constexpr (std::is_same_v<Element, float>) {
        activate_rows(activation, sums, FASTVOC_WIDTH, y + c, width, rows, c, FASTVOC_WIDTH);
      } else {
        activate_rows(activation, sums, FASTVOC_WIDTH, rows, c, FASTVOC_WIDTH);
        for (std::int64_t i = 0; i < rows; ++i) put(y + i * width + c, load(sums + i * FASTVOC_WIDTH), activation);
      }
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
    for (std::ptrdiff_t c = 0; c < width; c += FASTVOC_WIDTH) {
      depthwise_sums(args.kernel, in.data, width, args.dilation, args.weight, args.bias, c, count,
                     [&](std::int64_t i, Vec sum) { store(y + i * width + c, sum); });
    }
    if (!direct) store_rows(sink, t, result, count);
  }
}

}  // namespace fastvoc::FASTVOC_ISA
