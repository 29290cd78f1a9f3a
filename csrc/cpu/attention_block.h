// attention_block: h = x + out(attend(norm1(x))), y = h + project(gelu(expand(norm2(h)))), for the rows of all items at once. A
// row's sums run over its inputs, and over the steps that it sees from the oldest on, in one order, whichever rows are computed
// with it: chunks change no bit.
#pragma once

#include "attention_block_args.h"
#include "convnext_block.h"
#include "tile.h"

namespace fastvoc::FASTVOC_ISA {

// The query of one head, the ring of its keys and values, and the place of its step.
template <class Element>
struct AttentionQuery {
  const float* query;
  const Element* keys;    // [head_dim][ring]
  const Element* values;  // [ring], rows of `row`
  std::ptrdiff_t row;
  std::int64_t ring;
  std::int64_t place;
  int head_dim;
  int window;
};

// Scores of N times 16 entries of the ring from `at` on.
template <int N, class Element>
inline __attribute__((always_inline)) void score_panels(const AttentionQuery<Element>& in, std::int64_t at, float* scores) {
  Vec sum[N * kVecs] = {};
  const Element* key = in.keys + at;
  for (int d = 0; d < in.head_dim; ++d, key += in.ring) {
    const float q = in.query[d];
#pragma GCC unroll 16
    for (int v = 0; v < N * kVecs; ++v) sum[v] += load(key + v * FASTVOC_WIDTH) * q;
  }
#pragma GCC unroll 16
  for (int v = 0; v < N * kVecs; ++v) store(scores + at + v * FASTVOC_WIDTH, sum[v]);
}

// Sums N vectors of the values of `count` entries from `at` on, weighted.
template <int N, class Element>
inline __attribute__((always_inline)) void add_values(const AttentionQuery<Element>& in, std::int64_t at, std::int64_t count,
                                                      const float* weights, int channel, Vec (&sum)[N]) {
  const Element* value = in.values + at * in.row + channel;
  for (std::int64_t j = 0; j < count; ++j, value += in.row) {
    const float w = weights[j];
#pragma GCC unroll 16
    for (int v = 0; v < N; ++v) sum[v] += load(value + v * FASTVOC_WIDTH) * w;
  }
}

template <int N, class Element>
inline __attribute__((always_inline)) void mix(const AttentionQuery<Element>& in, std::int64_t first, std::int64_t before,
                                               std::int64_t count, const float* weights, float scale, int channel, float* y) {
  Vec sum[N] = {};
  add_values<N>(in, first, before, weights, channel, sum);
  add_values<N>(in, 0, count - before, weights + before, channel, sum);
#pragma GCC unroll 16
  for (int v = 0; v < N; ++v) store(y + channel + v * FASTVOC_WIDTH, sum[v] * scale);
}

// y [head_dim]: the values that a step sees, weighted by the softmax of its scores. `scores` has room for the ring, `weights` for
// the window in whole panels. Never inlined: every instance might contract its products differently.
template <class Element>
__attribute__((noinline)) void attend(const AttentionQuery<Element>& in, float* scores, float* weights, float* y) {
  const std::int64_t count = std::min<std::int64_t>(in.place + 1, in.window);
  const std::int64_t first = (in.place + 1 - count) % in.ring, before = std::min(count, in.ring - first);
  // Whole panels of the ring: what lies beside the window is not looked at.
  const auto score = [&](std::int64_t from, std::int64_t to) {
    std::int64_t at = from / kPanel * kPanel;
    for (; at + 4 * kPanel <= to; at += 4 * kPanel) score_panels<4>(in, at, scores);
    for (; at < to; at += kPanel) score_panels<1>(in, at, scores);
  };
  score(first, first + before);
  score(0, count - before);
  std::copy_n(scores + first, before, weights);
  std::copy_n(scores, count - before, weights + before);
  const std::int64_t whole = ceil_div(count, FASTVOC_WIDTH) * FASTVOC_WIDTH;
  std::fill(weights + count, weights + whole, weights[0]);
  Vec most = load(weights);
  for (std::int64_t j = FASTVOC_WIDTH; j < whole; j += FASTVOC_WIDTH) {
    const Vec s = load(weights + j);
    most = s > most ? s : most;
  }
  float lanes[FASTVOC_WIDTH];
  store(lanes, most);
  const Vec highest = broadcast(*std::max_element(lanes, lanes + FASTVOC_WIDTH));
  for (std::int64_t j = 0; j < whole; j += FASTVOC_WIDTH) {
    const Vec s = load(weights + j) - highest;
    const Vec e = exp2_negative(s * 1.44269504f);
    store(weights + j, s == s ? e : s);
  }
  std::fill(weights + count, weights + whole, 0.0f);
  Vec total{};
  for (std::int64_t j = 0; j < whole; j += FASTVOC_WIDTH) total += load(weights + j);
  const float scale = 1.0f / lane_sum(total);
  int c = 0;
  for (; c + 8 * FASTVOC_WIDTH <= in.head_dim; c += 8 * FASTVOC_WIDTH) mix<8>(in, first, before, count, weights, scale, c, y);
  for (; c + FASTVOC_WIDTH <= in.head_dim; c += FASTVOC_WIDTH) mix<1>(in, first, before, count, weights, scale, c, y);
  if (c == in.head_dim) return;
  // The last channels as a vector that is not whole: loops over numbers would be contracted differently by where a ring ends.
  const int rest = in.head_dim - c;
  Vec sum{};
  for (std::int64_t j = 0; j < count; ++j) {
    const Element* value = in.values + (j < before ? first + j : j - before) * in.row + c;
    float part[FASTVOC_WIDTH] = {};
    for (int i = 0; i < rest; ++i) part[i] = widen(value[i]);
    sum += load(part) * weights[j];
  }
  store(lanes, sum * scale);
  std::copy_n(lanes, rest, y + c);
}

// Turns the pairs of channels of `count` heads of a row by angles whose cosines and sines are [head_dim / 2] each.
inline __attribute__((noinline)) void turn_heads(float* row, int count, int head_dim, const float* cos, const float* sin,
                                                 float scale) {
  const int half = head_dim / 2;
  for (int h = 0; h < count; ++h, row += head_dim) {
    for (int i = 0; i < half; ++i) {
      const float first = row[i], second = row[i + half];
      row[i] = (first * cos[i] - second * sin[i]) * scale;
      row[i + half] = (second * cos[i] + first * sin[i]) * scale;
    }
  }
}

template <class Element>
class AttentionRun {
  using Given = Outer<Element>;

 public:
  AttentionRun(const AttentionBlockArgs<Element>& args, const AttentionItem<Given>* items, int count, std::int64_t rows,
               float* workspace)
      : args_(args), items_(items), count_(count), width_(padded(args.channels)), mixed_(padded(args.mixed())),
        queries_(padded(args.queries())), hidden_(padded(args.hidden)) {
    state_ = workspace;
    mix_ = state_ + rows * width_;
    normal_ = reinterpret_cast<Element*>(mix_ + rows * mixed_);
    seen_ = reinterpret_cast<Element*>(mix_ + rows * (mixed_ + width_));
    expanded_ = reinterpret_cast<Element*>(mix_ + rows * (mixed_ + width_ + queries_));
    zeros_ = mix_ + rows * (mixed_ + width_ + queries_ + hidden_);
    const std::ptrdiff_t most = std::max({width_, mixed_, hidden_});
    std::fill_n(zeros_, most, 0.0f);
    own_ = zeros_ + most;
    own_floats_ = width_ + padded(args.head_dim) + items[0].ring + ceil_div(args.window, kPanel) * kPanel;
  }

  // The steps [begin, end) of every item, as far as it has them.
  void run(std::int64_t begin, std::int64_t end) {
    int rows = 0;
    for (int i = 0; i < count_; ++i) {
      for (std::int64_t t = begin; t < std::min(end, items_[i].x.steps); ++t) rows_[static_cast<std::size_t>(rows++)] = {i, t};
    }
    share(args_.team, rows, [&](std::int64_t first, std::int64_t last, int part) {
      for (std::int64_t r = first; r < last; ++r) {
        const auto [item, t] = at(r);
        load_rows(items_[item].x, t, t + 1, nullptr, row(r), Act{});
        normalize(args_.norm1, args_.qkv.bytes, r, part);
      }
    });
    product(args_.qkv, normal_, width_, mixed_ / kPanel, rows, [&](int first) {
      return plain(mix_ + first, mixed_);
    });
    share(args_.team, rows, [&](std::int64_t first, std::int64_t last, int part) {
      for (std::int64_t r = first; r < last; ++r) turn(r, part);
    });
    share(args_.team, std::int64_t{rows} * args_.heads, [&](std::int64_t first, std::int64_t last, int part) {
      for (std::int64_t n = first; n < last; ++n) look(n / args_.heads, static_cast<int>(n % args_.heads), part);
    });
    const auto added = [&](int first) {
      Result out = plain(state_ + first, width_);
      out.residual = out.raw;
      out.residual_row = width_;
      return out;
    };
    product(args_.out, seen_, queries_, width_ / kPanel, rows, added);
    share(args_.team, rows, [&](std::int64_t first, std::int64_t last, int part) {
      for (std::int64_t r = first; r < last; ++r) normalize(args_.norm2, args_.expand.bytes, r, part);
    });
    Act gelu = args_.project.bytes;
    gelu.kind = ActKind::kGelu;
    product(args_.expand, normal_, width_, hidden_ / kPanel, rows, [&](int first) {
      return hidden_output(expanded_ + first, hidden_, gelu);
    });
    product(args_.project, expanded_, hidden_, width_ / kPanel, rows, added);
    for (int r = 0; r < rows; ++r) store_rows(items_[at(r).item].y, at(r).step, row(r), 1);
  }

 private:
  static constexpr bool kBytes = std::is_same_v<Element, std::uint8_t>;
  using Result = TileOutputOf<std::conditional_t<kBytes, Element, float>>;
  struct Row {
    int item;
    std::int64_t step;
  };

  const Row& at(std::int64_t r) const { return rows_[static_cast<std::size_t>(r)]; }
  float* row(std::int64_t r) const { return state_ + r * width_; }
  float* own(int part) const { return own_ + part * own_floats_; }

  static Result plain(float* y, std::ptrdiff_t row) { return {.raw = y, .raw_row = row}; }

  // `count` floats as they are multiplied.
  static void take(const float* x, Element* y, std::ptrdiff_t count, [[maybe_unused]] const Act& bytes) {
    if constexpr (kBytes) {
      std::ptrdiff_t i = 0;
      for (; i + FASTVOC_WIDTH <= count; i += FASTVOC_WIDTH) put(y + i, load(x + i), bytes);
      if (i == count) return;
      float rest[FASTVOC_WIDTH] = {};
      Element made[FASTVOC_WIDTH];
      for (std::ptrdiff_t j = i; j < count; ++j) rest[j - i] = x[j];
      put(made, load(rest), bytes);
      std::copy_n(made, count - i, y + i);
    } else {
      narrow_row(x, y, count);
    }
  }

  void normalize(const LayerNormArgs& norm, const Act& bytes, std::int64_t r, int part) const {
    float* const copy = own(part);
    std::copy_n(row(r), width_, copy);
    normalize_row(norm, copy);
    take(copy, normal_ + r * width_, width_, bytes);
  }

  // The product of rows by weights; output(c) is where the channels from c on go.
  template <class Output>
  void product(const AttentionProduct<Element>& by, const Element* x, std::ptrdiff_t x_row, int panels, int rows,
               const Output& output) const {
    share_panels(args_.team, panels, [&](int first, int last, int) {
      if constexpr (kBytes) {
        const auto tile = tile_input(x, x_row, 0, by.filter, 1, by.inputs);
        conv_rows(tile.from(first), output(first * kPanel), rows, last - first);
      } else {
        const int inputs = grouped<Element>(by.inputs);
        const PointwiseInput<Element> in{x, x_row, by.filter.weight + std::ptrdiff_t{first} * kPanel * inputs,
                                         zeros_ + first * kPanel, inputs / Numbers<Element>::kGroup};
        pointwise_rows(in, output(first * kPanel), rows, last - first);
      }
    });
  }

  // Turns the queries and keys of a row, and puts keys and values into the ring.
  void turn(std::int64_t r, int part) const {
    const AttentionItem<Given>& item = items_[at(r).item];
    const std::int64_t place = item.place + at(r).step, entry = place % item.ring;
    const int half = args_.head_dim / 2;
    float *const cos = own(part), *const sin = cos + half;
    for (int i = 0; i < half; ++i) {
      const double angle = static_cast<double>(place) * static_cast<double>(args_.frequencies[i]);
      cos[i] = static_cast<float>(std::cos(angle));
      sin[i] = static_cast<float>(std::sin(angle));
    }
    float* const query = mix_ + r * mixed_;
    float* const key = query + args_.queries();
    const int kept = args_.kept();
    turn_heads(query, args_.heads, args_.head_dim, cos, sin, 1.0f / std::sqrt(static_cast<float>(args_.head_dim)));
    turn_heads(key, args_.kv_heads, args_.head_dim, cos, sin, 1.0f);
    for (int c = 0; c < kept; ++c) narrow_row(key + c, item.keys + c * item.ring + entry, 1);
    narrow_row(key + kept, item.values + entry * kept, kept);
  }

  // What one head of a row sees.
  void look(std::int64_t r, int head, int part) const {
    const AttentionItem<Given>& item = items_[at(r).item];
    const int size = args_.head_dim, of = head / (args_.heads / args_.kv_heads);
    const AttentionQuery<Given> in{mix_ + r * mixed_ + head * size, item.keys + std::ptrdiff_t{of} * size * item.ring,
                                     item.values + of * size, args_.kept(), item.ring, item.place + at(r).step, size,
                                     args_.window};
    float* const y = own(part) + width_;
    float* const scores = y + padded(size);
    attend(in, scores, scores + item.ring, y);
    take(y, seen_ + r * queries_ + head * size, size, args_.out.bytes);
  }

  const AttentionBlockArgs<Element>& args_;
  const AttentionItem<Given>* items_;
  const int count_;
  const std::ptrdiff_t width_;
  const std::ptrdiff_t mixed_;
  const std::ptrdiff_t queries_;
  const std::ptrdiff_t hidden_;
  std::array<Row, kAttentionRows> rows_{};
  float* state_;  // x, then h, then y
  float* mix_;    // queries, keys and values
  Element* normal_;
  Element* seen_;
  Element* expanded_;
  float* zeros_;
  float* own_;  // of each part of the team
  std::ptrdiff_t own_floats_;
};

// All steps of some items, no more than kAttentionRows, with rings of one size.
template <class Element>
void attention_block(const AttentionBlockArgs<Element>& args, const AttentionItem<Outer<Element>>* items, int count,
                     float* workspace) {
  std::int64_t longest = 0;
  for (int i = 0; i < count; ++i) longest = std::max(longest, items[i].x.steps);
  const std::int64_t steps = std::min(attention_steps(count, items[0].ring - (args.window - 1)), longest);
  AttentionRun<Element> all(args, items, count, steps * count, workspace);
  for (std::int64_t t = 0; t < longest; t += steps) all.run(t, t + steps);
}

}  // namespace fastvoc::FASTVOC_ISA
