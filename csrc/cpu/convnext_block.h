// convnext_block: y = x + project(gelu(expand(norm(depthwise(x))))), strip by strip, the hidden layer chunk by chunk.
#pragma once

#include "convnext_block_args.h"
#include "layer_norm.h"
#include "pointwise.h"
#include "strip_bf16.h"

namespace fastvoc::FASTVOC_ISA {

// Depthwise convolution of one step: `x` is the step of the first tap.
template <class Element>
void depthwise_row(const ConvNextBlockArgs<Element>& args, const float* x, float* y) {
  const int width = padded(args.channels);
  for (int c = 0; c < width; c += FASTVOC_WIDTH) {
    Vec sum = load(args.depthwise + args.kernel * width + c);
    for (int k = 0; k < args.kernel; ++k) sum += load(args.depthwise + k * width + c) * load(x + k * width + c);
    store(y + c, sum);
  }
}

// Where a chunk of the hidden layer goes, activated.
inline TileOutput hidden_output(float* y, std::ptrdiff_t row, const Act& act) {
  TileOutput out{};
  out.act = y;
  out.act_row = row;
  out.activation = &act;
  out.scale = 1.0f;
  return out;
}

inline RoundedOutput hidden_output(Bf16* y, std::ptrdiff_t row, const Act& act) { return {y, row, &act, 0}; }

template <class Element>
void convnext_block(const ConvNextBlockArgs<Element>& args, const SourceOf<Element>& source, const SinkOf<Element>& sink,
                    std::int64_t begin, std::int64_t end, float* workspace) {
  using Word = typename WordOf<Element>::type;
  const auto words = [](const Element* p) { return reinterpret_cast<const Word*>(p); };
  const auto inputs = [](int count) { return static_cast<int>(ceil_div(count, ConvNextBlockArgs<Element>::kTaken)); };
  const int width = padded(args.channels), hidden = padded(args.hidden);
  const std::int64_t strip = convnext_strip(args, end - begin), side = args.kernel / 2;
  const Act plain, gelu{ActKind::kGelu};
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
    load_rows(source, valid, in.end, nullptr, in.at(valid), plain);
    in.pad_left(false);
    in.pad_right(t + count + side, source.steps, false);
    for (std::int64_t i = 0; i < count; ++i) {
      depthwise_row(args, in.at(t + i - side), one);
      normalize_row(args.norm, one);
      narrow_row(one, normal + i * width, width);
    }
    const Word* w = words(args.weight);
    for (int h = 0; h < hidden; h += args.chunk) {
      const int columns = std::min(args.chunk, hidden - h);
      const int in_words = inputs(args.channels), hidden_words = inputs(std::min(columns, args.hidden - h));
      const std::ptrdiff_t normal_row = width / args.kTaken, expanded_row = columns / args.kTaken;
      const PointwiseInput<Word> expand{words(normal), normal_row, w, args.expand_bias + h, in_words};
      pointwise_rows(expand, hidden_output(expanded, columns, gelu), count, columns / kPanel);
      w += static_cast<std::ptrdiff_t>(columns) * in_words;
      TileOutput out{};
      out.raw = result;
      out.residual = h ? result : in.at(t);
      out.raw_row = out.residual_row = width;
      out.scale = 1.0f;
      const PointwiseInput<Word> project{words(expanded), expanded_row, w, h ? zeros : args.project_bias, hidden_words};
      pointwise_rows(project, out, count, width / kPanel);
      w += static_cast<std::ptrdiff_t>(width) * hidden_words;
    }
    store_rows(sink, t, result, count);
  }
}

}  // namespace fastvoc::FASTVOC_ISA
