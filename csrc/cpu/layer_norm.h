// layer_norm: y = (x - mean) / sqrt(var + eps) * weight + bias over the channels of every step.
#pragma once

#include "layer_norm_args.h"
#include "strip.h"
#include "vec.h"

namespace fastvoc::FASTVOC_ISA {

// Sum of the lanes, in the order of a binary tree.
inline float lane_sum(Vec v) {
  float lanes[FASTVOC_WIDTH];
  store(lanes, v);
  for (int half = FASTVOC_WIDTH / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  }
  return lanes[0];
}

// Normalises one row of padded width in place; what lies beyond the channels must be 0, and stays so.
inline void normalize_row(const LayerNormArgs& args, float* row) {
  const int whole = args.channels / FASTVOC_WIDTH * FASTVOC_WIDTH, width = padded(args.channels);
  const float count = static_cast<float>(args.channels);
  Vec sum{};
  for (int c = 0; c < width; c += FASTVOC_WIDTH) sum += load(row + c);
  const float mean = lane_sum(sum) / count;
  Vec squares{};
  for (int c = 0; c < whole; c += FASTVOC_WIDTH) {
    const Vec d = load(row + c) - mean;
    squares += d * d;
  }
  float total = lane_sum(squares);
  for (int c = whole; c < args.channels; ++c) total += (row[c] - mean) * (row[c] - mean);
  const float scale = 1.0f / std::sqrt(total / count + args.eps);
  for (int c = 0; c < width; c += FASTVOC_WIDTH) {
    store(row + c, (load(row + c) - mean) * scale * load(args.weight + c) + load(args.bias + c));
  }
}

template <class Element>
void layer_norm(const LayerNormArgs& args, const SourceOf<Element>& source, const SinkOf<Element>& sink,
                std::int64_t begin, std::int64_t end, float* workspace) {
  const int width = padded(args.channels);
  const std::int64_t strip = strip_steps(width, end - begin);
  for (std::int64_t t = begin; t < end; t += strip) {
    const std::int64_t count = std::min(strip, end - t);
    load_rows(source, t, t + count, nullptr, workspace, Act{});
    for (std::int64_t i = 0; i < count; ++i) normalize_row(args, workspace + i * width);
    store_rows(sink, t, workspace, count);
  }
}

}  // namespace fastvoc::FASTVOC_ISA
