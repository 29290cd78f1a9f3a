#include "integer_lm.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <stdexcept>

// The inner loops are built for several levels of x86; integers come out the same from each of them.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define FASTVOC_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FASTVOC_CLONES
#endif

namespace fastvoc::coder {
namespace {

constexpr std::int64_t kLimit = (std::int64_t{1} << 30) - 1;
constexpr std::int64_t kLog2E = 1549082005;  // 2^30 log2(e)
constexpr std::int64_t kEpsilon = 42950;     // 2^32 1e-5
constexpr int kActivationBits = 14;
constexpr int kDroppedBits = 10;  // of an attention weight
constexpr std::int64_t kTotal = 1 << 24;
constexpr std::size_t kBlock = 16;

std::int32_t clamp(std::int64_t x) { return static_cast<std::int32_t>(std::clamp(x, -kLimit, kLimit)); }

// x / 2^shift to the nearest, halves up.
std::int64_t shift_right(std::int64_t x, int shift) {
  return shift == 0 ? x : (x + (std::int64_t{1} << (shift - 1))) >> shift;
}

std::int64_t floor_divide(std::int64_t a, std::int64_t b) { return a / b - (a % b < 0); }  // b > 0

int bit_length(std::uint64_t x) { return 64 - std::countl_zero(x); }

std::int64_t floor_sqrt(std::int64_t x) {
  auto root = static_cast<std::int64_t>(std::sqrt(static_cast<double>(x)));
  while (root * root > x) --root;
  while ((root + 1) * (root + 1) <= x) ++root;
  return root;
}

// Shifts x down until `bits` bits and a sign hold it; returns the shift.
int normalise(std::span<const std::int32_t> x, int bits, std::int16_t* y) {
  std::uint32_t largest = 0;
  for (const std::int32_t v : x) largest = std::max(largest, static_cast<std::uint32_t>(std::abs(v)));
  const int shift = std::max(0, bit_length(largest) - bits);
  for (std::size_t i = 0; i < x.size(); ++i) y[i] = static_cast<std::int16_t>(shift_right(x[i], shift));
  return shift;
}

FASTVOC_CLONES void dot_rows(const std::int8_t* weights, const std::int16_t* x, std::size_t rows, std::size_t cols,
                             std::int32_t* sums) {
  for (std::size_t j = 0; j < rows; ++j, weights += cols) {
    std::int32_t sum = 0;
    for (std::size_t i = 0; i < cols; ++i) sum += static_cast<std::int16_t>(weights[i]) * x[i];
    sums[j] = sum;
  }
}

// Products of one vector with each of `count`; all are padded to whole blocks.
FASTVOC_CLONES void dot_each(const std::int16_t* x, const std::int16_t* each, std::size_t count, std::size_t blocks,
                             std::int32_t* sums) {
  for (std::size_t t = 0; t < count; ++t, each += blocks * kBlock) {
    std::int32_t sum = 0;
    for (std::size_t b = 0; b < blocks; ++b) {
      for (std::size_t i = 0; i < kBlock; ++i) sum += x[b * kBlock + i] * each[b * kBlock + i];
    }
    sums[t] = sum;
  }
}

FASTVOC_CLONES void add_weighted(const std::int32_t* weights, const std::int32_t* each, std::size_t count,
                                 std::size_t blocks, std::int64_t* sums) {
  for (std::size_t b = 0; b < blocks; ++b) {
    std::int64_t sum[kBlock] = {};
    for (std::size_t t = 0; t < count; ++t) {
      const std::int32_t* x = each + (t * blocks + b) * kBlock;
      for (std::size_t i = 0; i < kBlock; ++i) sum[i] += static_cast<std::int64_t>(weights[t]) * x[i];
    }
    std::copy_n(sum, kBlock, sums + b * kBlock);
  }
}

// 2^30 exp(x - best), x up to best.
FASTVOC_CLONES void exp_below(const std::int32_t* table, std::int32_t best, const std::int32_t* x, std::size_t n,
                              std::int32_t* y) {
  for (std::size_t k = 0; k < n; ++k) {
    const std::int64_t t = (std::int64_t{best} - x[k]) * kLog2E >> 30;
    const std::int32_t i = t >> 8 & 255, r = t & 255;
    // A table value is below 2^31: shifted by 31 it is 0.
    y[k] = (table[i] - ((table[i] - table[i + 1]) * r >> 8)) >> std::min<std::int64_t>(t >> 16, 31);
  }
}

// The most bits of an input that keep sums of products with 7-bit weights below 2^31.
int activation_bits(std::size_t cols) { return std::min(kActivationBits, 31 - bit_length(127 * cols)); }

void linear(const Matrix& m, std::span<const std::int32_t> x, std::int16_t* shifted, std::int32_t* y) {
  const int shift = normalise(x, activation_bits(m.cols), shifted);
  dot_rows(m.weights.data(), shifted, m.rows, m.cols, y);
  for (std::size_t j = 0; j < m.rows; ++j) {
    const std::int64_t product = static_cast<std::int64_t>(y[j]) * m.multiplier[j];
    y[j] = clamp(shift_right(product, m.exponent - shift) + m.bias[j]);
  }
}

void layer_norm(const Norm& norm, std::span<std::int32_t> x) {
  const auto n = static_cast<std::int64_t>(x.size());
  std::int64_t sum = 0;
  for (const std::int32_t v : x) sum += v;
  const std::int64_t mean = floor_divide(2 * sum + n, 2 * n);
  std::int64_t largest = 0, squares = 0;
  for (const std::int32_t v : x) largest = std::max(largest, std::abs(v - mean));
  const int shift = std::max(0, bit_length(largest) - 22);
  for (const std::int32_t v : x) {
    const std::int64_t d = shift_right(v - mean, shift);
    squares += d * d;
  }
  const std::int64_t variance = squares / n + (kEpsilon >> 2 * shift);
  const std::int64_t inverse = (std::int64_t{1} << 52) / floor_sqrt(variance << 16);
  for (std::size_t i = 0; i < x.size(); ++i) {
    const std::int64_t d = shift_right(x[i] - mean, shift);
    x[i] = clamp(shift_right(shift_right(d * inverse, 28) * norm.weight[i], 16) + norm.bias[i]);
  }
}

std::int32_t gelu(const std::vector<std::int32_t>& table, std::int32_t x) {
  constexpr std::int32_t kEnd = 8 << 16;
  if (x >= kEnd) return x;
  if (x < -kEnd) return 0;
  const std::int64_t i = (x + kEnd) >> 9, r = x & 511;
  return static_cast<std::int32_t>(table[i] + shift_right((table[i + 1] - table[i]) * r, 9));
}

std::int32_t cosine(const std::vector<std::int32_t>& table, std::uint64_t turns) {
  const std::size_t i = turns >> 52;
  const auto r = static_cast<std::int64_t>(turns >> 36 & 0xffff);
  return static_cast<std::int32_t>(table[i] + shift_right((table[i + 1] - table[i]) * r, 16));
}

void add_row(const Matrix& m, std::size_t row, std::span<std::int32_t> x) {
  const std::int8_t* weights = m.weights.data() + row * m.cols;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const std::int64_t product = static_cast<std::int64_t>(weights[i]) * m.multiplier[row];
    x[i] = clamp(x[i] + shift_right(product, m.exponent - 16));
  }
}

void cumulate(const std::vector<std::int32_t>& table, std::span<std::int32_t> logits, std::uint32_t* cdf) {
  const std::size_t n = logits.size();
  exp_below(table.data(), *std::max_element(logits.begin(), logits.end()), logits.data(), n, logits.data());
  std::int64_t sum = 0;
  for (const std::int32_t weight : logits) sum += weight;
  const std::int64_t inverse = ((kTotal - 2 * static_cast<std::int64_t>(n)) << 38) / sum;
  std::uint32_t end = 0;
  for (std::size_t i = 0; i < n; ++i) cdf[i] = end += static_cast<std::uint32_t>(logits[i] * inverse >> 38) + 2;
}

int head_bits(std::size_t head_dim) { return std::min(kActivationBits, (31 - bit_length(head_dim)) / 2); }

void expect(bool right, const char* what) {
  if (!right) throw std::invalid_argument(what);
}

void check_matrix(const Matrix& m, std::size_t rows, std::size_t cols, bool bias, const char* what) {
  expect(m.rows == rows && m.cols == cols && m.weights.size() == rows * cols && m.multiplier.size() == rows &&
             m.bias.size() == (bias ? rows : 0),
         what);
  expect(m.exponent >= 20 && m.exponent <= 62, "exponent: expected 20 to 62");
  for (const std::int8_t w : m.weights) expect(w >= -127, "weights: expected -127 to 127");
  for (const std::int32_t v : m.multiplier) expect(v >= 0, "multiplier: expected 0 or more");
  for (const std::int32_t v : m.bias) expect(std::abs(std::int64_t{v}) <= kLimit, "bias: expected less than 2^30");
}

void check_norm(const Norm& norm, std::size_t dim) {
  expect(norm.weight.size() == dim && norm.bias.size() == dim, "norm: expected one weight and bias a channel");
  for (const auto* values : {&norm.weight, &norm.bias}) {
    for (const std::int32_t v : *values) expect(std::abs(std::int64_t{v}) <= kLimit, "norm: expected less than 2^30");
  }
}

void check_table(const std::vector<std::int32_t>& table, std::size_t size, std::int32_t limit) {
  expect(table.size() == size, "tables: wrong size");
  for (const std::int32_t v : table) expect(v >= -limit && v <= limit, "tables: value out of range");
}

}  // namespace

void check(const Weights& w) {
  constexpr std::size_t kMost = 4096;
  const std::size_t dim = w.dim(), hidden = w.hidden();
  expect(dim >= 4 && dim % 2 == 0 && dim <= kMost && hidden <= kMost, "dim: expected an even number up to 4096");
  expect(w.heads >= 1 && dim % w.heads == 0, "heads: expected a divisor of dim");
  expect(w.past >= 1 && w.past <= kMost, "past: expected 1 to 4096");
  expect(!w.outputs.empty() && w.outputs.size() == w.embeddings.size(), "codebooks: expected as many on both sides");
  const std::size_t symbols = w.symbols();
  expect(symbols >= 2 && symbols <= 1 << 14, "symbols: expected 2 to 16384");
  check_norm(w.norm_in, dim);
  for (const Layer& layer : w.layers) {
    check_matrix(layer.in_proj, 3 * dim, dim, true, "in_proj: wrong size");
    check_matrix(layer.out_proj, dim, dim, true, "out_proj: wrong size");
    check_matrix(layer.linear1, hidden, dim, true, "linear1: wrong size");
    check_matrix(layer.linear2, dim, hidden, true, "linear2: wrong size");
    check_norm(layer.norm1, dim);
    check_norm(layer.norm2, dim);
  }
  for (const Matrix& m : w.embeddings) check_matrix(m, symbols + 1, dim, false, "embeddings: wrong size");
  for (const Matrix& m : w.outputs) check_matrix(m, symbols, dim, true, "outputs: wrong size");
  check_table(w.tables.exp2, 257, 1 << 30);
  check_table(w.tables.gelu, 2049, 8 << 16);
  check_table(w.tables.cosine, 4097, 1 << 16);
  for (std::size_t i = 0; i < 256; ++i) {
    expect(w.tables.exp2[i] >= w.tables.exp2[i + 1] && w.tables.exp2[i + 1] > 0, "exp2: expected falling values");
  }
  expect(w.tables.exp2[0] == 1 << 30, "exp2: expected 1 first");
  expect(w.tables.turns.size() == dim / 2, "turns: wrong size");
}

State::State(const Weights& weights)
    : weights_(weights),
      padded_((weights.dim() / weights.heads + kBlock - 1) / kBlock * kBlock),
      memories_(weights.layers.size()),
      x_(weights.dim()),
      y_(weights.dim()),
      projected_(3 * weights.dim()),
      hidden_(weights.hidden()),
      logits_(weights.symbols()),
      scores_(weights.past + 1),
      shifted_(std::max(weights.dim(), weights.hidden())),
      query_(padded_),
      sums_(padded_) {
  const std::size_t slots = weights.past + 1, size = weights.heads * slots * padded_;
  for (std::size_t i = 0; i < memories_.size(); ++i) {
    memories_[i] = {std::vector<std::int16_t>(size), std::vector<int>(slots), std::vector<std::int32_t>(size)};
    remember(i);  // the model starts from one input of zeros
  }
  time_ = 1;
}

// Projects x_ and stores its key and value; its query stays in projected_.
void State::remember(std::size_t layer) {
  const std::size_t dim = weights_.dim(), head_dim = dim / weights_.heads, slots = weights_.past + 1;
  const std::size_t slot = time_ % slots;
  Memory& memory = memories_[layer];
  linear(weights_.layers[layer].in_proj, x_, shifted_.data(), projected_.data());
  memory.key_shifts[slot] =
      normalise(std::span(projected_).subspan(dim, dim), head_bits(head_dim), shifted_.data());
  for (std::size_t h = 0; h < weights_.heads; ++h) {
    const std::size_t at = (h * slots + slot) * padded_;
    std::copy_n(&shifted_[h * head_dim], head_dim, &memory.keys[at]);
    std::copy_n(&projected_[2 * dim + h * head_dim], head_dim, &memory.values[at]);
  }
}

// The values, weighted by the softmax of the query's products with the keys, into y_.
void State::attend(const Memory& memory, std::size_t entries) {
  const std::size_t dim = weights_.dim(), head_dim = dim / weights_.heads, slots = weights_.past + 1;
  const std::int64_t scale = floor_sqrt((std::int64_t{1} << 60) / static_cast<std::int64_t>(head_dim));
  const int shift = 46 - normalise(std::span(projected_).first(dim), head_bits(head_dim), shifted_.data());
  for (std::size_t h = 0; h < weights_.heads; ++h) {
    const std::size_t at = h * slots * padded_;
    std::copy_n(&shifted_[h * head_dim], head_dim, query_.data());
    dot_each(query_.data(), &memory.keys[at], entries, padded_ / kBlock, scores_.data());
    for (std::size_t t = 0; t < entries; ++t) {
      scores_[t] = clamp(shift_right(scores_[t] * scale, shift - memory.key_shifts[t]));
    }
    exp_below(weights_.tables.exp2.data(), *std::max_element(scores_.begin(), scores_.begin() + entries),
              scores_.data(), entries, scores_.data());
    std::int64_t sum = 0;
    for (std::size_t t = 0; t < entries; ++t) sum += scores_[t] >>= kDroppedBits;
    add_weighted(scores_.data(), &memory.values[at], entries, padded_ / kBlock, sums_.data());
    for (std::size_t i = 0; i < head_dim; ++i) y_[h * head_dim + i] = clamp(floor_divide(sums_[i] + sum / 2, sum));
  }
}

void State::step(std::span<const std::int32_t> tokens, std::span<std::uint32_t> cdf) {
  const std::size_t dim = weights_.dim(), symbols = weights_.symbols();
  std::fill(x_.begin(), x_.end(), 0);
  for (std::size_t k = 0; k < tokens.size(); ++k) add_row(weights_.embeddings[k], tokens[k], x_);
  layer_norm(weights_.norm_in, x_);
  for (std::size_t i = 0; i < dim / 2; ++i) {
    const std::uint64_t turns = (time_ - 1) * weights_.tables.turns[i];
    x_[i] = clamp(std::int64_t{x_[i]} + cosine(weights_.tables.cosine, turns));
    std::int32_t& sine = x_[dim / 2 + i];
    sine = clamp(std::int64_t{sine} + cosine(weights_.tables.cosine, turns - (std::uint64_t{1} << 62)));
  }
  const std::size_t entries = std::min<std::uint64_t>(time_, weights_.past) + 1;
  for (std::size_t l = 0; l < weights_.layers.size(); ++l) {
    const Layer& layer = weights_.layers[l];
    remember(l);
    attend(memories_[l], entries);
    linear(layer.out_proj, y_, shifted_.data(), projected_.data());
    for (std::size_t i = 0; i < dim; ++i) x_[i] = clamp(std::int64_t{x_[i]} + projected_[i]);
    layer_norm(layer.norm1, x_);
    linear(layer.linear1, x_, shifted_.data(), hidden_.data());
    for (std::int32_t& v : hidden_) v = gelu(weights_.tables.gelu, v);
    linear(layer.linear2, hidden_, shifted_.data(), y_.data());
    for (std::size_t i = 0; i < dim; ++i) x_[i] = clamp(std::int64_t{x_[i]} + y_[i]);
    layer_norm(layer.norm2, x_);
  }
  for (std::size_t k = 0; k < tokens.size(); ++k) {
    linear(weights_.outputs[k], x_, shifted_.data(), logits_.data());
    cumulate(weights_.tables.exp2, logits_, cdf.data() + k * symbols);
  }
  ++time_;
}

}  // namespace fastvoc::coder
