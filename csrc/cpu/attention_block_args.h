// What the glue hands to attention_block.
#pragma once

#include "layer_norm_args.h"

namespace fastvoc {

// One of the four products: weights, those of `out` and `project` with their scales in them, and how its inputs become bytes where
// they do. Floats and halves lie as packing.pack_pairs lays them out and have no bias, bytes as pack_conv_groups does.
template <class Element>
struct AttentionProduct {
  Filter<Element> filter;
  int inputs;
  Act bytes;
};

template <class Element>
struct AttentionBlockArgs {
  LayerNormArgs norm1;
  LayerNormArgs norm2;
  AttentionProduct<Element> qkv;
  AttentionProduct<Element> out;
  AttentionProduct<Element> expand;
  AttentionProduct<Element> project;
  const float* frequencies;
  int channels;
  int heads;
  int kv_heads;
  int head_dim;
  int hidden;
  int window;
  const Team* team = nullptr;

  int queries() const { return heads * head_dim; }
  int kept() const { return kv_heads * head_dim; }
  int mixed() const { return queries() + 2 * kept(); }

  // Elements of the packed weights of a product.
  static std::int64_t weights(int outputs, int inputs) { return std::int64_t{padded(outputs)} * grouped<Element>(inputs); }
};

// One item: its signal begins at `place`. The ring of keys is [kept][ring], that of values [ring][kept]; the step at place p has
// entry p % ring. A ring has window - 1 places and as many more as steps run at once.
template <class Given>
struct AttentionItem {
  SourceOf<Given> x;
  SinkOf<Given> y;
  Given* keys;
  Given* values;
  std::int64_t ring;
  std::int64_t place;
};

// Rows of all items that run at once: the weights pass through the caches once for them.
constexpr int kAttentionRows = 96;

// Steps of each of so many items that run at once.
inline std::int64_t attention_steps(std::int64_t items, std::int64_t spare) {
  return std::clamp<std::int64_t>(kAttentionRows / items, 1, spare);
}

// Floats of scratch memory for so many rows.
template <class Element>
std::int64_t workspace_floats(const AttentionBlockArgs<Element>& args, std::int64_t rows, std::int64_t ring) {
  const std::int64_t width = padded(args.channels), mixed = padded(args.mixed()), hidden = padded(args.hidden);
  const std::int64_t own = width + padded(args.head_dim) + ring + ceil_div(args.window, kPanelWidth) * kPanelWidth;
  const std::int64_t parts = args.team ? args.team->parts : 1;
  return rows * (2 * width + mixed + padded(args.queries()) + hidden) + std::max({width, mixed, hidden}) + parts * own;
}

}  // namespace fastvoc
