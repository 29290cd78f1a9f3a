// Torch's view of attention_block.
#include "glue.h"

namespace fastvoc {
namespace {

// The four products, in the order of their use.
template <class Element>
void set_products(AttentionBlockArgs<Element>& args, const AttentionBlockCall& call) {
  using Args = AttentionBlockArgs<Element>;
  constexpr bool bytes = std::is_same_v<Element, std::uint8_t>;
  AttentionProduct<Element>* const products[] = {&args.qkv, &args.out, &args.expand, &args.project};
  const int inputs[] = {args.channels, args.queries(), args.channels, args.hidden};
  const int outputs[] = {args.mixed(), args.channels, args.hidden, args.channels};
  int64_t weights = 0, floats = 0;
  for (int i = 0; i < 4; ++i) {
    weights += Args::weights(outputs[i], inputs[i]);
    floats += 3 * padded(outputs[i]);
  }
  const auto* weight = packed<typename Numbers<Element>::Weight>(call.weight, weights, "weight");
  STD_TORCH_CHECK(call.integers.has_value() == bytes && call.grids.size() == (bytes ? 8 : 0),
                  "attention_block: expected integers and grids with weights of whole numbers, and with no others");
  const float* integers = bytes ? packed(*call.integers, floats, "integers") : nullptr;
  for (std::size_t i = 0; i < 4; ++i) {
    AttentionProduct<Element>& product = *products[i];
    product.inputs = inputs[i];
    product.filter.weight = weight;
    weight += Args::weights(outputs[i], inputs[i]);
    if constexpr (bytes) {
      const int width = padded(outputs[i]);
      product.filter.bias = integers;
      product.filter.scale = integers + width;
      product.filter.start = reinterpret_cast<const std::int32_t*>(integers + 2 * width);
      product.bytes.steps = static_cast<float>(call.grids[i]);
      product.bytes.zero = static_cast<float>(call.grids[4 + i]);
      integers += 3 * width;
    }
  }
}

template <class Element>
AttentionBlockArgs<Element> block_args(const AttentionBlockCall& call) {
  AttentionBlockArgs<Element> args{};
  args.channels = call.channels;
  args.heads = call.heads;
  args.kv_heads = call.kv_heads;
  args.head_dim = call.head_dim;
  args.hidden = call.hidden;
  args.window = call.window;
  STD_TORCH_CHECK(args.channels > 0 && args.heads > 0 && args.kv_heads > 0 && args.heads % args.kv_heads == 0 &&
                      args.head_dim > 0 && args.head_dim % 2 == 0 && args.hidden > 0 && args.window > 0,
                  "attention_block: expected positive sizes, and heads of an even size");
  const int64_t width = padded(args.channels);
  const float* const small = packed(call.norms, 4 * width, "norms");
  args.norm1 = {small, small + width, args.channels, static_cast<float>(call.eps1)};
  args.norm2 = {small + 2 * width, small + 3 * width, args.channels, static_cast<float>(call.eps2)};
  args.frequencies = packed(call.frequencies, args.head_dim / 2, "frequencies");
  set_products(args, call);
  return args;
}

// The rings of all items and where each of them is: those that torch gives, or none.
template <class Given>
struct Rings {
  Given* keys = nullptr;
  Given* values = nullptr;
  const int64_t* place = nullptr;
  int64_t size = 0;

  Rings(const AttentionBlockCall& call, int kept) {
    const MaybeTensor &k = call.keys, &v = call.values, &p = call.place;
    const int64_t items = call.x.size(0), window = call.window;
    STD_TORCH_CHECK(k.has_value() == v.has_value() && k.has_value() == p.has_value(),
                    "attention_block: expected keys, values and place, or none of them");
    if (!k) return;
    STD_TORCH_CHECK(v->dim() == 3, "values: expected [B, R, C]");
    size = v->size(1);
    STD_TORCH_CHECK(size >= window && size % kPanelWidth == 0, "attention_block: rings of ", size, " places for a window of ",
                    window);
    for (const Tensor* t : {&*k, &*v}) {
      check_elements<Given>(*t, "keys and values");
      STD_TORCH_CHECK(t->is_contiguous() && t->numel() == items * size * kept, "attention_block: expected contiguous rings of ",
                      items * size * kept, " values");
    }
    STD_TORCH_CHECK(p->is_cpu() && p->scalar_type() == torch::headeronly::ScalarType::Long && p->is_contiguous() &&
                        p->numel() == items,
                    "place: expected ", items, " contiguous int64 values on the CPU");
    keys = static_cast<Given*>(k->mutable_data_ptr());
    values = static_cast<Given*>(v->mutable_data_ptr());
    place = p->const_data_ptr<int64_t>();
    for (int64_t i = 0; i < items; ++i) {
      STD_TORCH_CHECK(place[i] >= 0 && place[i] < int64_t{1} << 62, "place: expected values in 0..2^62 - 1, got ", place[i]);
    }
  }
};

template <class Element>
Tensor run(const AttentionBlockCall& call) {
  using Given = Outer<Element>;
  AttentionBlockArgs<Element> args = block_args<Element>(call);
  STD_TORCH_CHECK(call.x.dim() == 3, "x: expected [B, C, T]");
  const Rings<Given> rings(call, args.kept());
  const BatchOf<Given> batch(call.x, args.channels, call.lengths);
  const OutputOf<Given> out(batch.items(), args.channels, batch.steps());
  const int64_t threads = torch::stable::get_num_threads();
  const Grant grant(std::min<int64_t>(threads, padded(args.channels) / (2 * kPanelWidth)), threads);
  const Team team = torch_team(grant.count());
  if (grant.count() > 1) args.team = &team;
  const FlushDenormals flush;
  // Items run together while there is room: the weights are read once for all of them.
  const int64_t together = std::clamp<int64_t>(kAttentionRows / batch.steps(), 1, batch.items());
  const int64_t most = std::min(attention_steps(together, batch.steps()), batch.steps()), before = args.window - 1;
  const int64_t ring = rings.size ? rings.size : ceil_div(before + most, kPanelWidth) * kPanelWidth;
  const int64_t kept = ring * args.kept();
  const int64_t held = rings.size ? 0 : ceil_div(2 * kept * together * static_cast<int64_t>(sizeof(Given)), sizeof(float));
  const int64_t aligned = ceil_div(held, kPanelWidth) * kPanelWidth;
  float* const memory = Arena::mine().floats(static_cast<std::size_t>(aligned + workspace_floats(args, together * most, ring)));
  std::vector<AttentionItem<Given>> items;
  for (int64_t first = 0; first < batch.items(); first += together) {
    items.clear();
    for (int64_t i = first; i < std::min(first + together, batch.items()); ++i) {
      Given* const own = reinterpret_cast<Given*>(memory) + (i - first) * 2 * kept;
      Given *const keys = rings.size ? rings.keys + i * kept : own, *const values = rings.size ? rings.values + i * kept : own + kept;
      items.push_back({batch.source(i), out.sink(i), keys, values, ring, rings.size ? rings.place[i] : 0});
    }
    engine().convolutions<Element>().attention_block(args, items.data(), as_int(static_cast<int64_t>(items.size())), memory + aligned);
  }
  return out.tensor([&](int64_t item) { return batch.length(item); });
}

Tensor attention_block(const AttentionBlockCall& call) {
  return by_element(call.weight, [&](auto element) { return run<decltype(element)>(call); });
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CPU, m) {
  m.impl("attention_block", fastvoc::boxed<fastvoc::AttentionBlockCall, fastvoc::attention_block>);
}
