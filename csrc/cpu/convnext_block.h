// convnext_block: y = x + project(gelu(expand(norm(depthwise(x))))), strip by strip, the hidden layer chunk by chunk, or
// by a team all of it before the projection.
#pragma once

#include "convnext_block_args.h"
#include "layer_norm.h"
#include "pointwise.h"
#include "strip.h"

namespace fastvoc::FASTVOC_ISA {

// Depthwise convolution of one step: `x(k)` is the step of tap k.
template <class Element, class Step>
void depthwise_row(const ConvNextBlockArgs<Element>& args, const Step& x, float* y) {
  const int width = padded(args.channels);
  const float* const bias = args.depthwise + args.kernel * width;
  for (int k = 0; k < args.kernel; ++k) {
    const float* const sum = k ? y : bias;
    const float *const weight = args.depthwise + k * width, *const step = x(k);
    for (int c = 0; c < width; c += FASTVOC_WIDTH) store(y + c, load(sum + c) + load(weight + c) * load(step + c));
  }
}

// Where a chunk of the hidden layer goes, activated.
template <class Element>
TileOutputOf<Element> hidden_output(Element* y, std::ptrdiff_t row, const Act& act) {
  return {.act = y, .act_row = row, .activation = &act};
}

// A strip on its way through the two layers: `normal` is the input of the first, `expanded` [row] its output for the hidden
// channels from `begin` on, `result` that of the second, which begins with `residual`.
template <class Element>
struct ConvNextStrip {
  const ConvNextBlockArgs<Element>& args;
  const Element* normal;
  Element* expanded;
  int begin;
  int row;
  float* result;
  const float* residual;
  const float* zeros;
  std::int64_t count;

  static int words(int inputs) { return grouped<Element>(inputs) / Numbers<Element>::kGroup; }

  int columns(int h) const { return std::min(args.chunk, padded(args.hidden) - h); }
  // The weights of the chunk that begins with hidden channel h.
  const Element* weight(int h) const {
    return args.weight + static_cast<std::ptrdiff_t>(h) * (grouped<Element>(args.channels) + padded(args.channels));
  }

  // The hidden channels of the panels [first, last) from `begin` on.
  void expand(int first, int last) const {
    const Act gelu{ActKind::kGelu};
    for (int h = begin; h < begin + row; h += args.chunk) {
      const int from = std::max(begin + first * kPanel, h), to = std::min(begin + last * kPanel, h + columns(h));
      if (from >= to) continue;
      const Element* w = weight(h) + static_cast<std::ptrdiff_t>(from - h) * grouped<Element>(args.channels);
      const PointwiseInput<Element> in{normal, padded(args.channels), w, args.expand_bias + from, words(args.channels)};
      pointwise_rows(in, hidden_output(expanded + (from - begin), row, gelu), count, (to - from) / kPanel);
    }
  }

  // Adds what these hidden channels give to the output channels of the panels [first, last).
  void project(int first, int last) const {
    const int width = padded(args.channels), from = first * kPanel;
    for (int h = begin; h < begin + row; h += args.chunk) {
      const int inputs = std::min(columns(h), args.hidden - h);
      const TileOutput out{
          .raw = result + from, .residual = (h ? result : residual) + from, .raw_row = width, .residual_row = width};
      const Element* w = weight(h) + static_cast<std::ptrdiff_t>(columns(h)) * grouped<Element>(args.channels) +
                         static_cast<std::ptrdiff_t>(from) * grouped<Element>(inputs);
      const PointwiseInput<Element> in{expanded + (h - begin), row, w, (h ? zeros : args.project_bias) + from, words(inputs)};
      pointwise_rows(in, out, count, last - first);
    }
  }
};

template <class Element>
void convnext_block(const ConvNextBlockArgs<Element>& args, const SourceOf<Element>& source, const SinkOf<Element>& sink,
                    std::int64_t begin, std::int64_t end, float* workspace) {
  const int width = padded(args.channels), hidden = padded(args.hidden);
  const std::int64_t strip = convnext_strip(args, end - begin), side = args.kernel / 2;
  float* held = workspace;
  float* result = held + (strip + 2 * side) * width;
  float* zeros = result + strip * width;
  float* one = zeros + width;
  Element* normal = reinterpret_cast<Element*>(one + width);
  Element* expanded = normal + strip * width;
  std::memset(zeros, 0, static_cast<std::size_t>(width) * sizeof(float));
  for (std::int64_t t = begin; t < end; t += strip) {
    const std::int64_t count = std::min(strip, end - t);
    Strip in{held, width, t - side, std::min(t + count + side, source.steps)};
    const std::int64_t valid = std::max<std::int64_t>(in.first, 0);
    load_rows(source, valid, in.end, nullptr, in.at(valid), Act{});
    in.pad_left(false);
    in.pad_right(t + count + side, source.steps, false);
    for (std::int64_t i = 0; i < count; ++i) {
      depthwise_row(args, [&](int k) { return in.at(t + i - side + k); }, one);
      normalize_row(args.norm, one);
      narrow_row(one, normal + i * width, width);
    }
    const int span = args.team ? hidden : args.chunk;
    for (int h = 0; h < hidden; h += span) {
      const int row = std::min(span, hidden - h);
      const ConvNextStrip<Element> both{args, normal, expanded, h, row, result, in.at(t), zeros, count};
      share_panels(args.team, row / kPanel, [&](int first, int last, int) { both.expand(first, last); });
      share_panels(args.team, width / kPanel, [&](int first, int last, int) { both.project(first, last); });
    }
    store_rows(sink, t, result, count);
  }
}

}  // namespace fastvoc::FASTVOC_ISA
