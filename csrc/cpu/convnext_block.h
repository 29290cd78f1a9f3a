// convnext_block: y = x + project(gelu(expand(norm(depthwise(x))))), strip by strip, the hidden layer chunk by chunk.
#pragma once

#include "convnext_block_args.h"
#include "layer_norm.h"
#include "pointwise.h"
#include "strip.h"

namespace fastvoc::FASTVOC_ISA {

// Depthwise convolution of one step: `x` is the step of the first tap.
inline void depthwise_row(const ConvNextBlockArgs& args, const float* x, float* y) {
  const int width = padded(args.channels);
  for (int c = 0; c < width; c += FASTVOC_WIDTH) {
    Vec sum = load(args.depthwise + args.kernel * width + c);
    for (int k = 0; k < args.kernel; ++k) sum += load(args.depthwise + k * width + c) * load(x + k * width + c);
    store(y + c, sum);
  }
}

inline void convnext_block(const ConvNextBlockArgs& args, const Source& source, const Sink& sink, std::int64_t begin,
                           std::int64_t end, float* workspace) {
  const int width = padded(args.channels), hidden = padded(args.hidden);
  const std::int64_t strip = convnext_strip(args, end - begin), side = args.kernel / 2;
  const Act plain, gelu{ActKind::kGelu};
  float* held = workspace;
  float* normal = held + (strip + 2 * side) * width;
  float* result = normal + strip * width;
  float* zeros = result + strip * width;
  float* expanded = zeros + width;
  std::memset(zeros, 0, static_cast<std::size_t>(width) * sizeof(float));
  for (std::int64_t t = begin; t < end; t += strip) {
    const std::int64_t count = std::min(strip, end - t);
    Strip in{held, width, t - side, std::min(t + count + side, source.steps)};
    const std::int64_t valid = std::max<std::int64_t>(in.first, 0);
    load_rows(source, valid, in.end, nullptr, in.at(valid), plain);
    in.pad_left(false);
    in.pad_right(t + count + side, source.steps, false);
    for (std::int64_t i = 0; i < count; ++i) {
      depthwise_row(args, in.at(t + i - side), normal + i * width);
      normalize_row(args.norm, normal + i * width);
    }
    const float* w = args.weight;
    for (int h = 0; h < hidden; h += args.chunk) {
      const int columns = std::min(args.chunk, hidden - h), depth = std::min(columns, args.hidden - h);
      TileOutput wide{};
      wide.act = expanded;
      wide.act_row = columns;
      wide.activation = &gelu;
      wide.scale = 1.0f;
      pointwise_rows({normal, width, w, args.expand_bias + h, args.channels}, wide, count, columns / kPanel);
      w += static_cast<std::ptrdiff_t>(columns) * args.channels;
      TileOutput narrow{};
      narrow.raw = result;
      narrow.residual = h ? result : in.at(t);
      narrow.raw_row = narrow.residual_row = width;
      narrow.scale = 1.0f;
      pointwise_rows({expanded, columns, w, h ? zeros : args.project_bias, depth}, narrow, count, width / kPanel);
      w += static_cast<std::ptrdiff_t>(width) * depth;
    }
    store_rows(sink, t, result, count);
  }
}

}  // namespace fastvoc::FASTVOC_ISA
