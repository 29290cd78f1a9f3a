// What the glue hands to convnext_stream, and how its state lies in memory.
#pragma once

#include "conv1d_args.h"
#include "convnext_block_args.h"
#include "trio_args.h"

namespace fastvoc {

// A convolution, a norm, blocks, a norm and a linear layer. The norms lie by layer and item: that behind the convolution, those
// of the blocks, the last one. With `trios` these are what is multiplied, each layer once: the convolution, whose inputs are
// windows of `kernel` rows, the two of every block, the last one; the other products' weights and biases are then not there.
struct ConvNextStreamArgs {
  int cin;
  int kernel;
  int channels;
  int out;
  int count;  // of the blocks
  int items;
  Filter<float> embed;
  Filter<float> head;
  const ConvNextBlockArgs<float>* blocks;
  const LayerNormArgs* norms;
  const Trios* trios;

  const LayerNormArgs& norm(int layer, std::int64_t item) const { return norms[layer * items + item]; }
  // Layer 0 is the convolution, the blocks follow.
  int side(int layer) const { return (layer ? blocks[layer - 1].kernel : kernel) / 2; }
  int width(int layer) const { return padded(layer ? channels : cin); }
  int row() const { return std::max(width(0), width(1)); }
  // Input steps that the input of a layer lies behind.
  std::int64_t delay(int layer) const {
    std::int64_t steps = 0;
    for (int l = 0; l < layer; ++l) steps += side(l);
    return steps;
  }
  // An item's state: for every layer the last 2 * side steps of its input, zeros before the first.
  std::int64_t state_floats() const {
    std::int64_t floats = 0;
    for (int l = 0; l <= count; ++l) floats += 2ll * side(l) * width(l);
    return floats;
  }
  // Inputs of the convolution as one row, and the products.
  int window() const { return kernel * width(0); }
  int products() const { return 2 * count + 2; }
  int phases() const { return 3 * count + 7; }
};

// A chunk of items that are all at the same point: input steps [have, have + steps) of them, which end there when `last`.
struct ConvNextChunk {
  const Source* sources;  // that begin with step `have`
  std::int64_t have;
  std::int64_t steps;
  bool last;
  const float* before;  // the states, one after the other, as they were and as they become
  float* after;
  const Sink* sinks;  // that begin with the first step of the output

  // Steps of a layer's input, or of the output of the last one, that are known before and after the chunk.
  std::int64_t first(const ConvNextStreamArgs& args, int layer) const {
    return std::max<std::int64_t>(0, have - args.delay(layer));
  }
  std::int64_t end(const ConvNextStreamArgs& args, int layer) const {
    return last ? have + steps : std::max<std::int64_t>(0, have + steps - args.delay(layer));
  }
  std::int64_t count(const ConvNextStreamArgs& args, int layer) const { return end(args, layer) - first(args, layer); }
  // The most that any layer computes.
  std::int64_t most(const ConvNextStreamArgs& args) const { return steps + (last ? args.delay(args.count + 1) : 0); }
};

// Floats of scratch memory that a chunk needs.
inline std::int64_t workspace_floats(const ConvNextStreamArgs& args, const ConvNextChunk& chunk) {
  int hidden = 0;
  for (int b = 0; b < args.count; ++b) hidden = std::max(hidden, padded(args.blocks[b].hidden));
  const std::int64_t window = args.window(), row = args.row();
  return chunk.most(args) * args.items * (3 * row + std::max<std::int64_t>({hidden, window, padded(args.out)})) + row;
}

}  // namespace fastvoc
