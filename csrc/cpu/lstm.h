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
constexpr int kGateRows = FASTVOC_WIDTH == 16 ? 4 : kGateSums / kGateVecs;  // of a tile

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
#pragma GCC unroll 8
      for (int v = 0; v < vecs; ++v) sum[r][v] = load(in.start + r * in.start_row + g * kPanelWidth + v * FASTVOC_WIDTH);
    }
    const Unit* w = in.w + g * kPanelWidth;
    // One pointer for three rows: more would not stay in registers.
    const std::ptrdiff_t row = in.x_row;
    const Unit* x[(R + 2) / 3];
#pragma GCC unroll 8
    for (int n = 0; n < (R + 2) / 3; ++n) x[n] = in.x + 3 * n * row;
    const int inputs = in.inputs;
#pragma GCC unroll 4
    for (int k = 0; k < inputs; ++k, w += kLstmBlock) {
#pragma GCC unroll 32
      for (int r = 0; r < R; ++r) {
        const Unit xv = x[r / 3][(r % 3) * row + k];
#pragma GCC unroll 8
        for (int v = 0; v < vecs; ++v) sum[r][v] = LstmUnit<Element>::dot(sum[r][v], w + v * FASTVOC_WIDTH, xv);
      }
    }
#pragma GCC unroll 32
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
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
  LstmRun(const LstmLayer<Element>& layer, const LstmGroup<Element>& group, std::int64_t chunk, float* workspace)
      : layer_(layer), group_(group), width_(padded(layer.hidden)), blocks_(width_ / kPanelWidth), chunk_(chunk) {
    const std::ptrdiff_t state = group.count * width_;
    h_ = workspace;
    c_ = h_ + state;
    float* given = c_ + state;
    given_[0] = reinterpret_cast<Element*>(given);
    given_[1] = reinterpret_cast<Element*>(given + state);
    gates_ = given + 2 * state;
    rows_ = reinterpret_cast<Element*>(gates_ + group.count * chunk_ * kGates * width_);
  }

  // All units, `chunk` steps after the other.
  void run() {
    const std::int64_t longest = group_.items[0].x.steps;
    begin(0, blocks_);
    for (std::int64_t s = 0; s < longest; s += chunk_) {
      const std::int64_t end = std::min(s + chunk_, longest);
      if (group_.before) await_steps(group_.before, end);
      for (int i = 0; i < group_.count && group_.items[i].x.steps > s; ++i) {
        gather(i, s, end);
        project(i, s, end, 0, blocks_);
      }
      for (std::int64_t t = s; t < end; ++t) step(t, t - s, 0, blocks_);
      if (group_.done) __atomic_store_n(group_.done, end, __ATOMIC_RELEASE);
    }
  }

  // A single chunk of which each member of a crew computes some blocks of units.
  void run(CrewMember& crew) {
    const std::int64_t longest = group_.items[0].x.steps;
    crew.share([&](int piece, int pieces) {
      for (int i = piece; i < group_.count; i += pieces) gather(i, 0, longest);
    });
    crew.share_rows(blocks_, [&](std::int64_t first, std::int64_t last) {
      begin(first, last);
      for (int i = 0; i < group_.count; ++i) project(i, 0, longest, first, last);
    });
    for (std::int64_t t = 0; t < longest; ++t) {
      crew.share_rows(blocks_, [&](std::int64_t first, std::int64_t last) { step(t, t, first, last); });
    }
  }

 private:
  using Unit = typename LstmUnit<Element>::Type;
  static constexpr int kStep = kLstmStep<Element>;

  float* gates(int i, std::int64_t step) const { return gates_ + (i * chunk_ + step) * kGates * width_; }

  static const Unit* units(const Element* p) { return reinterpret_cast<const Unit*>(p); }

  // The state of the units of the blocks [first, last) before the first step.
  void begin(std::ptrdiff_t first, std::ptrdiff_t last) {
    const std::ptrdiff_t from = first * kPanelWidth, to = last * kPanelWidth;
    for (int i = 0; i < group_.count; ++i) {
      const LstmItem<Element>& item = group_.items[i];
      const std::ptrdiff_t known = item.h ? std::min<std::ptrdiff_t>(to, layer_.hidden) : from;
      const auto set = [&](const float* state, float* row) {
        if (state) std::copy(state + from, state + known, row + from);
        std::fill(row + known, row + to, 0.0f);
      };
      set(item.h, h_ + i * width_);
      set(item.c, c_ + i * width_);
      narrow_row(h_ + i * width_ + from, given_[0] + i * width_ + from, to - from);
    }
  }

  // What a product can take as it is.
  bool direct(const SourceOf<Element>& x) const {
    const bool aligned = reinterpret_cast<std::uintptr_t>(x.data) % sizeof(Unit) == 0 && x.step % kStep == 0;
    return x.channel == 1 && aligned && layer_.inputs == lstm_inputs<Element>(layer_.inputs);
  }
  std::int64_t count(int i, std::int64_t begin, std::int64_t end) const {
    return std::max<std::int64_t>(std::min(end, group_.items[i].x.steps) - begin, 0);
  }
  std::int64_t first_step(int i, std::int64_t begin, std::int64_t end) const {
    return layer_.reverse ? group_.items[i].x.steps - begin - count(i, begin, end) : begin;
  }
  Element* row(int i) const { return rows_ + i * chunk_ * lstm_inputs<Element>(layer_.inputs); }

  // Copies the inputs of the steps [begin, end) to rows where a product cannot take them as they are.
  void gather(int i, std::int64_t begin, std::int64_t end) {
    const SourceOf<Element>& x = group_.items[i].x;
    if (direct(x)) return;
    const std::ptrdiff_t width = lstm_inputs<Element>(layer_.inputs);
    const Element* from = x.data + first_step(i, begin, end) * x.step;
    for (std::int64_t t = 0; t < count(i, begin, end); ++t) {
      Element* to = row(i) + t * width;
      for (int c = 0; c < layer_.inputs; ++c) to[c] = from[t * x.step + c * x.channel];
      std::fill(to + layer_.inputs, to + width, Element{});
    }
  }

  // The gates' sums over the inputs of the steps [begin, end), in the order in which the recurrence takes them, for some blocks.
  void project(int i, std::int64_t begin, std::int64_t end, std::ptrdiff_t first, std::ptrdiff_t last) {
    const SourceOf<Element>& x = group_.items[i].x;
    const std::int64_t steps = count(i, begin, end);
    const std::ptrdiff_t width = lstm_inputs<Element>(layer_.inputs);
    const Element* rows = direct(x) ? x.data + first_step(i, begin, end) * x.step : row(i);
    const std::ptrdiff_t next = direct(x) ? x.step : width;
    const int inputs = static_cast<int>(width / kStep);
    const std::ptrdiff_t out_row = (layer_.reverse ? -kGates : kGates) * width_;
    float* out = gates(i, layer_.reverse ? steps - 1 : 0);
    for (std::ptrdiff_t b = first; b < last; ++b) {
      const Unit* w = units(layer_.w_ih) + b * inputs * kLstmBlock;
      gate_rows<Element>({units(rows), next / kStep, w, inputs, layer_.bias + b * kLstmBlock, 0, out + b * kLstmBlock, out_row},
                         steps);
    }
  }

  // The blocks [first, last) of one step of the items that are as long. Every other step goes through them backwards, so that
  // what the L2 cache still holds of the weights serves again.
  void step(std::int64_t s, std::int64_t in_chunk, std::ptrdiff_t first, std::ptrdiff_t last) {
    int active = group_.count;
    while (group_.items[active - 1].x.steps <= s) --active;
    const int inputs = static_cast<int>(lstm_inputs<Element>(layer_.hidden) / kStep);
    const Element* const given = given_[s & 1];
    for (std::ptrdiff_t n = first; n < last; ++n) {
      const std::ptrdiff_t b = s & 1 ? first + last - 1 - n : n;
      const Unit* w = units(layer_.w_hh) + b * inputs * kLstmBlock;
      // The sums replace what they began with.
      float* const sums = gates(0, in_chunk) + b * kLstmBlock;
      const std::ptrdiff_t row = chunk_ * kGates * width_;
      gate_rows<Element>({units(given), width_ / kStep, w, inputs, sums, row, sums, row}, active);
      for (int i = 0; i < active; ++i) {
        const std::ptrdiff_t at = i * width_ + b * kPanelWidth;
        cell(sums + i * row, c_ + at, h_ + at);
      }
    }
    const std::ptrdiff_t from = first * kPanelWidth, to = last * kPanelWidth;
    for (int i = 0; i < active; ++i) {
      narrow_row(h_ + i * width_ + from, given_[(s + 1) & 1] + i * width_ + from, to - from);
      const int units = static_cast<int>(std::min<std::ptrdiff_t>(to, layer_.hidden));
      emit(group_.items[i], s, i, static_cast<int>(from), units);
    }
  }

  // The output and, behind the last step, the state of the units [from, to).
  void emit(const LstmItem<Element>& item, std::int64_t s, int i, int from, int to) const {
    const std::int64_t t = layer_.reverse ? item.x.steps - 1 - s : s;
    Element* y = item.y + t * item.row;
    const float* h = h_ + i * width_;
    if (item.skip.data) {
      const Element* x = item.skip.data + t * item.skip.step;
      for (int c = from; c < to; ++c) {
        const float sum = widen(x[c * item.skip.channel]) + h[c];
        narrow_row(&sum, y + c, 1);
      }
    } else {
      const Element* out = given_[(s + 1) & 1] + i * width_;
      std::copy(out + from, out + to, y + from);
    }
    if (!item.h || s + 1 != item.x.steps) return;
    std::copy(h + from, h + to, item.h + from);
    std::copy(c_ + i * width_ + from, c_ + i * width_ + to, item.c + from);
  }

  const LstmLayer<Element>& layer_;
  const LstmGroup<Element>& group_;
  const std::ptrdiff_t width_;
  const std::ptrdiff_t blocks_;
  const std::int64_t chunk_;
  float* h_;
  float* c_;
  Element* given_[2];  // h as the products of even and of odd steps take it
  float* gates_;
  Element* rows_;
};

template <class Element>
void lstm(const LstmLayer<Element>& layer, const LstmGroup<Element>& group, float* workspace) {
  LstmRun<Element>(layer, group, lstm_chunk(group), workspace).run();
}

// Layers one after the other, each over all the steps, by a crew.
template <class Element>
void lstm_shared(const LstmLayer<Element>* layers, const LstmGroup<Element>* groups, int count, CrewMember crew,
                 float* workspace) {
  for (int l = 0; l < count; ++l) {
    LstmRun<Element>(layers[l], groups[l], groups[l].items[0].x.steps, workspace).run(crew);
  }
}

}  // namespace fastvoc::FASTVOC_ISA
