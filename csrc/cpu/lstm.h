// lstm: one layer over a group of items. The input projection of several steps is one product; the recurrent one reads its
// weights once a step for the whole group. Every sum runs over its inputs in one order, whatever the group. With bfloat16
// elements the weights and what they are multiplied with are rounded; sums, gates and states are float32.
#pragma once

#include "lstm_args.h"
#include "rows.h"

namespace fastvoc::FASTVOC_ISA {

// A product of rows by a block of weights: row r is x + r * x_row with `inputs` words; sums begin at start + r * start_row.
template <class Element>
struct GateInput {
  const Element* x;
  std::ptrdiff_t x_row;
  const Element* w;
  int inputs;
  const float* start;
  std::ptrdiff_t start_row;
  float* out;
  std::ptrdiff_t out_row;
};

constexpr int kGateSums = FASTVOC_WIDTH == 16 ? 16 : 12;  // that stay in registers
constexpr int kGateRows = FASTVOC_WIDTH == 16 ? 4 : kGateSums / kVecs;  // of a tile

// Gates that a tile of R rows computes at once.
constexpr int gates_at_once(int rows) {
  for (int gates = kGates; gates > 1; gates /= 2) {
    if (gates * kVecs * rows <= kGateSums) return gates;
  }
  return 1;
}

template <int R, class Element>
__attribute__((noinline)) void gate_tile(const GateInput<Element>& in) {
  using D = Dot<Element>;
  constexpr int gates = gates_at_once(R), vecs = gates * kVecs, lanes = Numbers<Element>::kGroup;
  for (int g = 0; g < kGates; g += gates) {
    Vec sum[R][vecs];
#pragma GCC unroll 32
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
      for (int v = 0; v < vecs; ++v) sum[r][v] = load(in.start + r * in.start_row + g * kPanel + v * FASTVOC_WIDTH);
    }
    const Element* w = in.w + g * kPanel * lanes;
    const WordRows<R, D> x(in.x, in.x_row / lanes);
    const int inputs = in.inputs;
#pragma GCC unroll 4
    for (int k = 0; k < inputs; ++k, w += kLstmBlock * lanes) {
      typename D::Weights wv[vecs];
#pragma GCC unroll 8
      for (int v = 0; v < vecs; ++v) wv[v] = D::load_weights(w + v * FASTVOC_WIDTH * lanes);
      add_products(sum, wv, x, k);
    }
    store_sums(in.out + g * kPanel, in.out_row, sum);
  }
}

// Any number of rows.
template <class Element>
void gate_rows(GateInput<Element> in, std::int64_t rows) {
  static constexpr auto table = by_height<kGateRows>([]<int R>() { return &gate_tile<R, Element>; });
  over_tiles(table, rows, [&](auto tile, std::int64_t n) {
    tile(in);
    in.x += n * in.x_row;
    in.start += n * in.start_row;
    in.out += n * in.out_row;
  });
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

  // The chunk from step s on, of which each member of a crew computes some blocks of units.
  void run(CrewMember& crew, std::int64_t s) {
    const std::int64_t end = std::min(s + chunk_, group_.items[0].x.steps);
    crew.phase([&](int i, int parts) {
      for (; i < group_.count; i += parts) gather(i, s, end);
    });
    share(crew, blocks_, [&](std::int64_t first, std::int64_t last, int) {
      if (s == 0) begin(first, last);
      for (int i = 0; i < group_.count; ++i) project(i, s, end, first, last);
    });
    for (std::int64_t t = s; t < end; ++t) {
      share(crew, blocks_, [&](std::int64_t first, std::int64_t last, int) { step(t, t - s, first, last); });
    }
  }

 private:
  static constexpr int kGroup = Numbers<Element>::kGroup;

  float* gates(int i, std::int64_t step) const { return gates_ + (i * chunk_ + step) * kGates * width_; }

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
    const bool aligned = reinterpret_cast<std::uintptr_t>(x.data) % (kGroup * sizeof(Element)) == 0 && x.step % kGroup == 0;
    return x.channel == 1 && aligned && layer_.inputs % kGroup == 0;
  }
  std::int64_t count(int i, std::int64_t begin, std::int64_t end) const {
    return std::max<std::int64_t>(std::min(end, group_.items[i].x.steps) - begin, 0);
  }
  std::int64_t first_step(int i, std::int64_t begin, std::int64_t end) const {
    return layer_.reverse ? group_.items[i].x.steps - begin - count(i, begin, end) : begin;
  }
  Element* row(int i) const { return rows_ + i * chunk_ * grouped<Element>(layer_.inputs); }

  // Copies the inputs of the steps [begin, end) to rows where a product cannot take them as they are.
  void gather(int i, std::int64_t begin, std::int64_t end) {
    const SourceOf<Element>& x = group_.items[i].x;
    if (direct(x)) return;
    const std::ptrdiff_t width = grouped<Element>(layer_.inputs);
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
    const std::ptrdiff_t width = grouped<Element>(layer_.inputs);
    const Element* rows = direct(x) ? x.data + first_step(i, begin, end) * x.step : row(i);
    const std::ptrdiff_t next = direct(x) ? x.step : width;
    const std::ptrdiff_t out_row = (layer_.reverse ? -kGates : kGates) * width_;
    float* out = gates(i, layer_.reverse ? steps - 1 : 0);
    for (std::ptrdiff_t b = first; b < last; ++b) {
      const Element* w = layer_.w_ih + b * width * kLstmBlock;
      const int inputs = static_cast<int>(width / kGroup);
      gate_rows<Element>({rows, next, w, inputs, layer_.bias + b * kLstmBlock, 0, out + b * kLstmBlock, out_row}, steps);
    }
  }

  // The blocks [first, last) of one step of the items that are as long. Every other step goes through them backwards, so that
  // what the L2 cache still holds of the weights serves again.
  void step(std::int64_t s, std::int64_t in_chunk, std::ptrdiff_t first, std::ptrdiff_t last) {
    int active = group_.count;
    while (group_.items[active - 1].x.steps <= s) --active;
    const int inputs = grouped<Element>(layer_.hidden);
    const Element* const given = given_[s & 1];
    for (std::ptrdiff_t n = first; n < last; ++n) {
      const std::ptrdiff_t b = s & 1 ? first + last - 1 - n : n;
      const Element* w = layer_.w_hh + b * inputs * kLstmBlock;
      // The sums replace what they began with.
      float* const sums = gates(0, in_chunk) + b * kLstmBlock;
      const std::ptrdiff_t row = chunk_ * kGates * width_;
      gate_rows<Element>({given, width_, w, inputs / kGroup, sums, row, sums, row}, active);
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

// Chunk by chunk the layers one after the other, by a crew.
template <class Element>
void lstm_shared(const LstmLayer<Element>* layers, const LstmGroup<Element>* groups, int count, CrewMember crew,
                 float* workspace) {
  const std::int64_t chunk = lstm_crew_chunk(groups[0]);
  std::vector<LstmRun<Element>> runs;
  for (int l = 0; l < count; ++l) {
    runs.emplace_back(layers[l], groups[l], chunk, workspace);
    workspace += workspace_floats(layers[l], groups[l], chunk);
  }
  for (std::int64_t s = 0; s < groups[0].items[0].x.steps; s += chunk) {
    for (LstmRun<Element>& run : runs) run.run(crew, s);
  }
}

}  // namespace fastvoc::FASTVOC_ISA
