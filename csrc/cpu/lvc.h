// lvc: y = gate(conv(x with the kernel of its frame) + bias) + residual, a few rows of one frame at a time.
#pragma once

#include "lvc_args.h"
#include "rows.h"

namespace fastvoc::FASTVOC_ISA {

// A frame's kernel: element (tap, in, out) is data[tap * tap_step + in * in_step + out], outputs in whole vectors.
struct LvcFrame {
  const float* data;
  std::ptrdiff_t tap_step;
  std::ptrdiff_t in_step;
  const float* bias;
};

// Dense rows [t][cin] in, rows of `width` floats out: R steps by NV vectors of output channels.
template <int R, int NV>
__attribute__((noinline)) void lvc_tile(const LvcArgs& args, const LvcFrame& frame, const float* x, int column, float* y,
                                        std::ptrdiff_t width) {
  Vec acc[R][NV];
  begin_sums(acc, [&](int v) __attribute__((always_inline)) { return load(frame.bias + column + v * FASTVOC_WIDTH); });
  for (int k = 0; k < args.taps; ++k) {
    const float* w = frame.data + k * frame.tap_step + column;
    const float* row = x + k * args.cin;
    for (int c = 0; c < args.cin; ++c, w += frame.in_step) {
      Vec weights[NV];
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) weights[v] = load(w + v * FASTVOC_WIDTH);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const float value = row[r * args.cin + c];
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) acc[r][v] += weights[v] * value;
      }
    }
  }
  store_sums(y + column, width, acc);
}

// The sums of `rows` steps for every output channel.
inline void lvc_rows(const LvcArgs& args, const LvcFrame& frame, const float* x, std::int64_t rows, float* y,
                     std::ptrdiff_t width) {
  constexpr int high = FASTVOC_WIDTH == 16 ? 12 : 6;
  static constexpr auto pairs = by_height<high, 6>([]<int R>() { return &lvc_tile<R, 2>; });
  static constexpr auto singles = by_height<high, 6>([]<int R>() { return &lvc_tile<R, 1>; });
  for (int column = 0; column < args.cout;) {
    const bool pair = column + FASTVOC_WIDTH < args.cout;
    std::int64_t r = 0;
    over_tiles(pair ? pairs : singles, rows, [&](auto tile, std::int64_t n) {
      tile(args, frame, x + r * args.cin, column, y + r * width, width);
      r += n;
    });
    column += pair ? 2 * FASTVOC_WIDTH : FASTVOC_WIDTH;
  }
}

// The kernel of a frame as it lies, where its rows of outputs are whole vectors; else a copy in `memory`, zeros beyond.
template <class Element>
LvcFrame lvc_frame(const LvcArgs& args, const LvcKernels<Element>& all, std::int64_t index, float* memory) {
  const int width = padded(args.cout);
  float* bias = memory + static_cast<std::ptrdiff_t>(args.taps) * args.cin * width;
  for (int o = 0; o < width; ++o) bias[o] = o < args.cout ? widen(all.bias[index * all.bias_frame + o * all.bias_out]) : 0.0f;
  const Element* from = all.data + index * all.frame;
  if constexpr (std::is_same_v<Element, float>) {
    if (all.out == 1 && args.cout % FASTVOC_WIDTH == 0) return {from, all.tap, all.in, bias};
  }
  float* to = memory;
  for (int k = 0; k < args.taps; ++k) {
    for (int c = 0; c < args.cin; ++c, to += width) {
      const Element* row = from + k * all.tap + c * all.in;
      for (int o = 0; o < width; ++o) to[o] = o < args.cout ? widen(row[o * all.out]) : 0.0f;
    }
  }
  return {memory, static_cast<std::ptrdiff_t>(args.cin) * width, width, bias};
}

template <class Element>
void lvc(const LvcArgs& args, const LvcKernels<Element>& kernels, const SourceOf<Element>& source,
         const SourceOf<Element>* residual, const SinkOf<Element>& sink, std::int64_t begin, std::int64_t end,
         float* workspace) {
  const int width = padded(args.cout), made = args.made(), pad = args.taps / 2;
  float* memory = workspace;
  float* x = memory + (static_cast<std::ptrdiff_t>(args.taps) * args.cin + 1) * width;
  float* sums = x + (kLvcRows + args.taps) * args.cin;
  float* y = sums + kLvcRows * width + kPanelWidth;
  std::int64_t held = -1;
  LvcFrame frame{};
  for (std::int64_t t = begin; t < end;) {
    const std::int64_t index = t / args.hop;
    const std::int64_t count = std::min({(index + 1) * args.hop, end, t + kLvcRows}) - t;
    if (index != held) {
      frame = lvc_frame(args, kernels, index, memory);
      held = index;
    }
    float* row = x;
    for (std::int64_t s = t - pad; s < t + count + pad; ++s, row += args.cin) {
      const bool inside = s >= 0 && s < source.steps;
      const Element* from = inside ? source.data + s * source.step : nullptr;
      for (int c = 0; c < args.cin; ++c) row[c] = inside ? widen(from[c * source.channel]) : 0.0f;
    }
    lvc_rows(args, frame, x, count, sums, width);
    for (std::int64_t i = 0; i < count; ++i) {
      const float* z = sums + i * width;
      float* out = y + i * made;
      for (int c = 0; c < made; c += FASTVOC_WIDTH) {
        const Vec v = load(z + c);
        store(out + c, args.gated ? (0.5f + 0.5f * tanh(0.5f * v)) * tanh(load(z + made + c)) : v);
      }
    }
    for (std::int64_t i = 0; residual && i < count; ++i) {
      const Element* r = residual->data + (t + i) * residual->step;
      for (int c = 0; c < made; ++c) y[i * made + c] += widen(r[c * residual->channel]);
    }
    narrow_row(y, sink.data + t * made, count * made);
    t += count;
  }
}

}  // namespace fastvoc::FASTVOC_ISA
