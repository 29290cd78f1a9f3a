// The language model over codec tokens in integer arithmetic: the same probabilities on every machine.
// fastvoc/models/integer_lm.py gives each step its meaning; its names are used here.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace fastvoc::coder {

// Row j stands for weights[j] * multiplier[j] * 2^-exponent; bias is empty or of 2^-16.
struct Matrix {
  std::size_t rows = 0, cols = 0;
  int exponent = 0;
  std::vector<std::int8_t> weights;
  std::vector<std::int32_t> multiplier, bias;
};

struct Norm {
  std::vector<std::int32_t> weight, bias;  // of 2^-16
};

struct Layer {
  Matrix in_proj, out_proj, linear1, linear2;
  Norm norm1, norm2;
};

struct Tables {
  std::vector<std::int32_t> exp2, gelu, cosine;
  std::vector<std::uint64_t> turns;  // of 2^-64: how far each position channel turns in a step
};

struct Weights {
  std::size_t heads = 0, past = 0;
  Norm norm_in;
  std::vector<Layer> layers;
  std::vector<Matrix> embeddings, outputs;  // one a codebook
  Tables tables;

  std::size_t dim() const { return norm_in.weight.size(); }
  std::size_t hidden() const { return layers.empty() ? 0 : layers[0].linear1.rows; }
  std::size_t symbols() const { return outputs[0].rows; }
};

// Throws std::invalid_argument when sizes do not fit together, so that a step needs no checks.
void check(const Weights& weights);

// What a layer remembers: keys and values of its last inputs, in any order: [heads][past + 1][padded head].
struct Memory {
  std::vector<std::int16_t> keys;
  std::vector<int> key_shifts;
  std::vector<std::int32_t> values;
};

class State {
 public:
  explicit State(const Weights& weights);

  // One step: the tokens of the last one (0 at the start, else 1 + code) in, each codebook's cumulative distribution
  // over the next codes, ending at 2^24 or below, out: [tokens.size()][symbols].
  void step(std::span<const std::int32_t> tokens, std::span<std::uint32_t> cdf);

 private:
  void remember(std::size_t layer);
  void attend(const Memory& memory, std::size_t entries);

  const Weights& weights_;
  std::size_t padded_;  // size of a head, filled up with zeros
  std::vector<Memory> memories_;
  std::uint64_t time_ = 0;
  std::vector<std::int32_t> x_, y_, projected_, hidden_, logits_, scores_;
  std::vector<std::int16_t> shifted_, query_;
  std::vector<std::int64_t> sums_;
};

}  // namespace fastvoc::coder
