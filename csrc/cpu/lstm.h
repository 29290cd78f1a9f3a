// lstm: one layer over a group of items. The input projection of several steps is one product; the recurrent one reads its
// weights once a step for the whole group. Every sum runs over its inputs in one order, whatever the group.
#pragma once

#include "lstm_args.h"
#include "math.h"

namespace fastvoc::FASTVOC_ISA {

// A product of rows by a block of weights: row r is x + r * x_row with `inputs` floats; sums begin at start + r * start_row.
struct GateInput {
  const float* x;
  std::ptrdiff_t x_row;
  const float* w;
  int inputs;
  const float* start;
  std::ptrdiff_t start_row;
  float* out;
  std::ptrdiff_t out_row;
};

constexpr int kGateVecs = kPanelWidth / FASTVOC_WIDTH;
constexpr int kGateSums = FASTVOC_WIDTH == 16 ? 24 : 12;  // that stay in registers
constexpr int kGateRows = kGateSums / (FASTVOC_WIDTH == 16 ? kGates : kGateVecs);  // of a tile

// Gates that a tile of R rows computes at once.
constexpr int gates_at_once(int rows) {
  for (int gates = kGates; gates > 1; gates /= 2) {
    if (gates * kGateVecs * rows <= kGateSums) return gates;
  }
  return 1;
}

template <int R>
__attribute__((noinline)) void gate_tile(const GateInput& in) {
  constexpr int gates = gates_at_once(R), vecs = gates * kGateVecs;
  for (int g = 0; g < kGates; g += gates) {
    Vec sum[R][vecs];
#pragma GCC unroll 32
    for (int r = 0; r < R; ++r) {
      for (int v = 0; v < vecs; ++v) sum[r][v] = load(in.start + r * in.start_row + g * kPanelWidth + v * FASTVOC_WIDTH);
    }
    const float* w = in.w + g * kPanelWidth;
    // One pointer for three rows: more would not stay in registers.
    const std::ptrdiff_t row = in.x_row;
    const float* x[(R + 2) / 3];
    for (int n = 0; n < (R + 2) / 3; ++n) x[n] = in.x + 3 * n * row;
    const int inputs = in.inputs;
#pragma GCC unroll 4
    for (int k = 0; k < inputs; ++k, w += kLstmBlock) {
      Vec wv[vecs];
      for (int v = 0; v < vecs; ++v) wv[v] = load(w + v * FASTVOC_WIDTH);
#pragma GCC unroll 32
      for (int r = 0; r < R; ++r) {
        const float xv = x[r / 3][(r % 3) * row + k];
        for (int v = 0; v < vecs; ++v) sum[r][v] += wv[v] * xv;
      }
    }
#pragma GCC unroll 32
    for (int r = 0; r < R; ++r) {
      for (int v = 0; v < vecs; ++v) store(in.out + r * in.out_row + g * kPanelWidth + v * FASTVOC_WIDTH, sum[r][v]);
    }
  }
}

template <int... R>
constexpr auto gate_table(std::integer_sequence<int, R...>) {
  return std::array<void (*)(const GateInput&), sizeof...(R) + 1>{nullptr, &gate_tile<R + 1>...};
}

inline void gate_rows(const GateInput& in, int rows) {
  static constexpr auto table = gate_table(std::make_integer_sequence<int, kGateRows>{});
  table[static_cast<std::size_t>(rows)](in);
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

class LstmRun {
 public:
  LstmRun(const LstmLayer& layer, const LstmGroup& group, float* workspace)
      : layer_(layer), group_(group), width_(padded(layer.hidden)), chunk_(lstm_chunk(group)) {
    const std::ptrdiff_t state = group.count * width_;
    h_[0] = workspace;
    h_[1] = h_[0] + state;
    c_ = h_[1] + state;
    gates_ = c_ + state;
    rows_ = gates_ + group.count * chunk_ * kGates * width_;
    std::fill(h_[0], gates_, 0.0f);
    for (int i = 0; i < group.count; ++i) {
      const LstmItem& item = group.items[i];
      if (!item.h) continue;
      std::copy_n(item.h, layer.hidden, h_[0] + i * width_);
      std::copy_n(item.c, layer.hidden, c_ + i * width_);
    }
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
      const LstmItem& item = group_.items[i];
      if (!item.h) continue;
      std::copy_n(h_[item.x.steps & 1] + i * width_, layer_.hidden, item.h);
      std::copy_n(c_ + i * width_, layer_.hidden, item.c);
    }
  }

 private:
  float* gates(int i, std::int64_t step) const { return gates_ + (i * chunk_ + step) * kGates * width_; }

  // The gates' sums over the inputs of the steps [begin, end), in the order in which the recurrence takes them.
  void project(int i, std::int64_t begin, std::int64_t end) {
    const Source& x = group_.items[i].x;
    const std::int64_t count = std::min(end, x.steps) - begin;
    const std::int64_t first = layer_.reverse ? x.steps - begin - count : begin;
    const float* rows = x.data + first * x.step;
    std::ptrdiff_t row = x.step;
    if (x.channel != 1) {
      for (std::int64_t t = 0; t < count; ++t) {
        for (int c = 0; c < layer_.inputs; ++c) rows_[t * layer_.inputs + c] = rows[t * row + c * x.channel];
      }
      rows = rows_;
      row = layer_.inputs;
    }
    const std::ptrdiff_t out_row = (layer_.reverse ? -kGates : kGates) * width_;
    float* out = gates(i, layer_.reverse ? count - 1 : 0);
    for (std::ptrdiff_t b = 0; b < width_ / kPanelWidth; ++b) {
      const float* w = layer_.w_ih + b * layer_.inputs * kLstmBlock;
      for (std::int64_t t = 0; t < count; t += kGateRows) {
        const GateInput in{rows + t * row, row,     w, layer_.inputs, layer_.bias + b * kLstmBlock, 0,
                           out + t * out_row + b * kLstmBlock, out_row};
        gate_rows(in, static_cast<int>(std::min<std::int64_t>(kGateRows, count - t)));
      }
    }
  }

  // One step of the first `active` items. Every other step goes through the blocks backwards, so that what the L2 cache
  // still holds of the weights serves again.
  void step(std::int64_t s, std::int64_t in_chunk, int active) {
    const std::ptrdiff_t blocks = width_ / kPanelWidth;
    const float* h = h_[s & 1];
    float* next = h_[(s + 1) & 1];
    for (std::ptrdiff_t n = 0; n < blocks; ++n) {
      const std::ptrdiff_t b = s & 1 ? blocks - 1 - n : n;
      for (int i = 0; i < active; i += kGateRows) {
        const int rows = std::min(kGateRows, active - i);
        alignas(64) float sums[kGateRows * kLstmBlock];
        const GateInput in{h + i * width_, width_, layer_.w_hh + b * layer_.hidden * kLstmBlock, layer_.hidden,
                           gates(i, in_chunk) + b * kLstmBlock, chunk_ * kGates * width_, sums, kLstmBlock};
        gate_rows(in, rows);
        for (int r = 0; r < rows; ++r) {
          const std::ptrdiff_t at = (i + r) * width_ + b * kPanelWidth;
          cell(sums + r * kLstmBlock, c_ + at, next + at);
        }
      }
    }
    for (int i = 0; i < active; ++i) emit(group_.items[i], s, next + i * width_);
  }

  void emit(const LstmItem& item, std::int64_t s, const float* h) const {
    const std::int64_t t = layer_.reverse ? item.x.steps - 1 - s : s;
    float* y = item.y + t * item.row;
    if (!item.skip.data) {
      std::copy_n(h, layer_.hidden, y);
      return;
    }
    const float* x = item.skip.data + t * item.skip.step;
    for (int c = 0; c < layer_.hidden; ++c) y[c] = x[c * item.skip.channel] + h[c];
  }

  const LstmLayer& layer_;
  const LstmGroup& group_;
  const std::ptrdiff_t width_;
  const std::int64_t chunk_;
  float* h_[2];
  float* c_;
  float* gates_;
  float* rows_;
};

inline void lstm(const LstmLayer& layer, const LstmGroup& group, float* workspace) {
  LstmRun(layer, group, workspace).run();
}

}  // namespace fastvoc::FASTVOC_ISA
