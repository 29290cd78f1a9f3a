// lstm: one layer over a group of items. The input projection of several steps is one product; the recurrent one reads its
// weights once a step for the whole group. Every sum runs over its inputs in one order, whatever the group. With bfloat16
// elements the weights and what they are multiplied with are rounded; sums, gates and states are float32.
#pragma once

#include "bf16.h"
#include "lstm_args.h"
#include "math.h"

namespace fastvoc::FASTVOC_ISA {

// What one multiplication takes: a number or a pair of them.
template <class Element>
struct LstmUnit {
  using Type = float;
  static inline __attribute__((always_inline)) Vec dot(Vec sum, const float* w, float x) { return sum + load(w) * x; }
};

template <>
struct LstmUnit<Bf16> {
  using Type = Pair;
  static inline __attribute__((always_inline)) Vec dot(Vec sum, const Pair* w, Pair x) {
    return dot_pairs(sum, load_pairs(w), x);
  }
};

// A product of rows by a block of weights: row r is x + r * x_row with `inputs` units; sums begin at start + r * start_row.
template <class Unit>
struct GateInput {
  const Unit* x;
  std::ptrdiff_t x_row;
  const Unit* w;
  int inputs;
  const float* start;
  std::ptrdiff_t start_row;
  float* out;
  std::ptrdiff_t out_row;
};

constexpr int kGateVecs = kPanelWidth / FASTVOC_WIDTH;
constexpr int kGateSums = FASTVOC_WIDTH == 16 ? 16 : 12;  // that stay in registers
constexpr int kGateRows = std::min(4, kGateSums / kGateVecs);  // of a tile

// Gates that a tile of R rows computes at once.
constexpr int gates_at_once(int rows) {
  for (int gates = kGates; gates > 1; gates /= 2) {
    if (gates * kGateVecs * rows <= kGateSums) return gates;
  }
  return 1;
}

template <class Element, int R>
__attribute__((noinline)) void gate_tile(const GateInput<typename LstmUnit<Element>::Type>& in) {
  using Unit = typename LstmUnit<Element>::Type;
  constexpr int gates = gates_at_once(R), vecs = gates * kGateVecs;
  for (int g = 0; g < kGates; g += gates) {
    Vec sum[R][vecs];
#pragma GCC unroll 32
    for (int r = 0; r < R; ++r) {
      for (int v = 0; v < vecs; ++v) sum[r][v] = load(in.start + r * in.start_row + g * kPanelWidth + v * FASTVOC_WIDTH);
    }
    const Unit* w = in.w + g * kPanelWidth;
    // One pointer for three rows: more would not stay in registers.
    const std::ptrdiff_t row = in.x_row;
    const Unit* x[(R + 2) / 3];
    for (int n = 0; n < (R + 2) / 3; ++n) x[n] = in.x + 3 * n * row;
    const int inputs = in.inputs;
#pragma GCC unroll 4
    for (int k = 0; k < inputs; ++k, w += kLstmBlock) {
#pragma GCC unroll 32
      for (int r = 0; r < R; ++r) {
        const Unit xv = x[r / 3][(r % 3) * row + k];
        for (int v = 0; v < vecs; ++v) sum[r][v] = LstmUnit<Element>::dot(sum[r][v], w + v * FASTVOC_WIDTH, xv);
      }
    }
#pragma GCC unroll 32
    for (int r = 0; r < R; ++r) {
      for (int v = 0; v < vecs; ++v) store(in.out + r * in.out_row + g * kPanelWidth + v * FASTVOC_WIDTH, sum[r][v]);
    }
  }
}

template <class Element, int... R>
constexpr auto gate_table(std::integer_sequence<int, R...>) {
  using Fn = void (*)(const GateInput<typename LstmUnit<Element>::Type>&);
  return std::array<Fn, sizeof...(R) + 1>{nullptr, &gate_tile<Element, R + 1>...};
}

// Any number of rows, in tiles of about equal height.
template <class Element>
void gate_rows(GateInput<typename LstmUnit<Element>::Type> in, std::int64_t rows) {
  static constexpr auto table = gate_table<Element>(std::make_integer_sequence<int, kGateRows>{});
  for (std::int64_t tiles = ceil_div(rows, kGateRows); tiles > 0; --tiles) {
    const std::int64_t n = ceil_div(rows, tiles);
    table[static_cast<std::size_t>(n)](in);
    in.x += n * in.x_row;
    in.start += n * in.start_row;
    in.out += n * in.out_row;
    rows -= n;
  }
}

// The cell of 16 units: c = f * c + i * g, h = o * tanh(c), from their gates before activation.
inline void cell(const float* gates, float* c, float* h) {
  for (int v = 0; v < kPanelWidth; v += FASTVOC_WIDTH) {
    const Vec i = sigmoid(load(gates + v));
    const Vec f = sigmoid(load(gates + kPanelWidth + v));
    const Vec g = tanh(load(gates + 2 * kPanelWidth + v));
    const Vec o = sigmoid(load(gates + 3 * kPanelWidth + v));
    const Vec next = f * load(c + v) + i * g;
    store(c + v, next);
    store(h + v, o * tanh(next));
  }
}

template <class Element>
class LstmRun {
 public:
  LstmRun(const LstmLayer<Element>& layer, const LstmGroup<Element>& group, float* workspace)
      : layer_(layer), group_(group), width_(padded(layer.hidden)), chunk_(lstm_chunk(group)) {
    const std::ptrdiff_t state = group.count * width_;
    h_ = workspace;
    c_ = h_ + state;
    float* before = c_ + state;
    before_ = reinterpret_cast<Element*>(before);
    gates_ = before + state;
    rows_ = reinterpret_cast<Element*>(gates_ + group.count * chunk_ * kGates * width_);
    std::fill(h_, before, 0.0f);
    for (int i = 0; i < group.count; ++i) {
      const LstmItem<Element>& item = group.items[i];
      if (!item.h) continue;
      std::copy_n(item.h, layer.hidden, h_ + i * width_);
      std::copy_n(item.c, layer.hidden, c_ + i * width_);
    }
    narrow_row(h_, before_, state);
  }

  void run() {
    const std::int64_t longest = group_.items[0].x.steps;
    int active = group_.count;
    for (std::int64_t begin = 0; begin < longest; begin += chunk_) {
      const std::int64_t end = std::min(begin + chunk_, longest);
      if (group_.before) await_steps(group_.before, end);
      for (int i = 0; i < group_.count && group_.items[i].x.steps > begin; ++i) project(i, begin, end);
      for (std::int64_t s = begin; s < end; ++s) {
        while (group_.items[active - 1].x.steps <= s) --active;
        step(s, s - begin, active);
      }
      if (group_.done) __atomic_store_n(group_.done, end, __ATOMIC_RELEASE);
    }
    for (int i = 0; i < group_.count; ++i) {
      const LstmItem<Element>& item = group_.items[i];
      if (!item.h) continue;
      std::copy_n(h_ + i * width_, layer_.hidden, item.h);
      std::copy_n(c_ + i * width_, layer_.hidden, item.c);
    }
  }

 private:
  using Unit = typename LstmUnit<Element>::Type;
  static constexpr int kStep = kLstmStep<Element>;

  float* gates(int i, std::int64_t step) const { return gates_ + (i * chunk_ + step) * kGates * width_; }

  static const Unit* units(const Element* p) { return reinterpret_cast<const Unit*>(p); }

  // The gates' sums over the inputs of the steps [begin, end), in the order in which the recurrence takes them.
  void project(int i, std::int64_t begin, std::int64_t end) {
    const SourceOf<Element>& x = group_.items[i].x;
    const std::int64_t count = std::min(end, x.steps) - begin;
    const std::int64_t first = layer_.reverse ? x.steps - begin - count : begin;
    const std::ptrdiff_t width = lstm_inputs<Element>(layer_.inputs);
    const Element* rows = x.data + first * x.step;
    std::ptrdiff_t row = x.step;
    const bool aligned = reinterpret_cast<std::uintptr_t>(rows) % sizeof(Unit) == 0 && row % kStep == 0;
    if (x.channel != 1 || !aligned || layer_.inputs != width) {
      for (std::int64_t t = 0; t < count; ++t) {
        Element* to = rows_ + t * width;
        for (int c = 0; c < layer_.inputs; ++c) to[c] = rows[t * row + c * x.channel];
        std::fill(to + layer_.inputs, to + width, Element{});
      }
      rows = rows_;
      row = width;
    }
    const int inputs = static_cast<int>(width / kStep);
    const std::ptrdiff_t out_row = (layer_.reverse ? -kGates : kGates) * width_;
    float* out = gates(i, layer_.reverse ? count - 1 : 0);
    for (std::ptrdiff_t b = 0; b < width_ / kPanelWidth; ++b) {
      const Unit* w = units(layer_.w_ih) + b * inputs * kLstmBlock;
      gate_rows<Element>({units(rows), row / kStep, w, inputs, layer_.bias + b * kLstmBlock, 0, out + b * kLstmBlock, out_row},
                         count);
    }
  }

  // One step of the first `active` items. Every other step goes through the blocks backwards, so that what the L2 cache
  // still holds of the weights serves again.
  void step(std::int64_t s, std::int64_t in_chunk, int active) {
    const std::ptrdiff_t blocks = width_ / kPanelWidth;
    const int inputs = static_cast<int>(lstm_inputs<Element>(layer_.hidden) / kStep);
    for (std::ptrdiff_t n = 0; n < blocks; ++n) {
      const std::ptrdiff_t b = s & 1 ? blocks - 1 - n : n;
      const Unit* w = units(layer_.w_hh) + b * inputs * kLstmBlock;
      // The sums replace what they began with.
      float* const sums = gates(0, in_chunk) + b * kLstmBlock;
      const std::ptrdiff_t row = chunk_ * kGates * width_;
      gate_rows<Element>({units(before_), width_ / kStep, w, inputs, sums, row, sums, row}, active);
      for (int i = 0; i < active; ++i) {
        const std::ptrdiff_t at = i * width_ + b * kPanelWidth;
        cell(sums + i * row, c_ + at, h_ + at);
      }
    }
    narrow_row(h_, before_, active * width_);
    for (int i = 0; i < active; ++i) emit(group_.items[i], s, i);
  }

  void emit(const LstmItem<Element>& item, std::int64_t s, int i) const {
    const std::int64_t t = layer_.reverse ? item.x.steps - 1 - s : s;
    Element* y = item.y + t * item.row;
    if (!item.skip.data) {
      std::copy_n(before_ + i * width_, layer_.hidden, y);
      return;
    }
    const Element* x = item.skip.data + t * item.skip.step;
    const float* h = h_ + i * width_;
    for (int c = 0; c < layer_.hidden; ++c) {
      const float sum = widen(x[c * item.skip.channel]) + h[c];
      narrow_row(&sum, y + c, 1);
    }
  }

  const LstmLayer<Element>& layer_;
  const LstmGroup<Element>& group_;
  const std::ptrdiff_t width_;
  const std::int64_t chunk_;
  float* h_;
  float* c_;
  Element* before_;  // h of the step before, as the products take it
  float* gates_;
  Element* rows_;
};

template <class Element>
void lstm(const LstmLayer<Element>& layer, const LstmGroup<Element>& group, float* workspace) {
  LstmRun<Element>(layer, group, workspace).run();
}

}  // namespace fastvoc::FASTVOC_ISA
