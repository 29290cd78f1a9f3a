// Torch's view of attention_block.
#include "cuda/attention_block.cuh"

#include "cuda/glue.h"

namespace fastvoc {
namespace {

// The rings and places that a call brings, all of them or none.
template <class T>
void set_state(cuda::AttentionBlockArgs<T>& args, const AttentionBlockCall& call) {
  const MaybeTensor &keys = call.keys, &values = call.values, &place = call.place;
  STD_TORCH_CHECK(keys.has_value() == values.has_value() && keys.has_value() == place.has_value(),
                  "attention_block: expected keys, values and place, or none of them");
  args.ring = cuda::padded(args.steps);
  if (!keys) return;
  STD_TORCH_CHECK(values->dim() == 3, "values: expected [B, R, C]");
  args.ring = values->size(1);
  STD_TORCH_CHECK(args.ring >= args.window, "attention_block: rings of ", args.ring, " places for a window of ", args.window);
  const std::int64_t elements = args.items * args.ring * args.kept();
  packed<T>(*keys, call.x, elements, "keys");
  packed<T>(*values, call.x, elements, "values");
  args.keys = static_cast<T*>(keys->mutable_data_ptr());
  args.values = static_cast<T*>(values->mutable_data_ptr());
  args.place = packed_as<std::int64_t>(*place, call.x, ScalarType::Long, args.items, "place");
}

Tensor attention_block(const AttentionBlockCall& call) {
  const Tensor& x = call.x;
  check_input(x);
  STD_TORCH_CHECK(call.channels > 0 && call.heads > 0 && call.kv_heads > 0 && call.heads % call.kv_heads == 0 &&
                      call.head_dim > 0 && call.head_dim % 2 == 0 && call.hidden > 0 && call.window > 0,
                  "attention_block: expected positive sizes, and heads of an even size");
  STD_TORCH_CHECK(call.head_dim <= cuda::kAttendSizes, "attention_block: heads of ", call.head_dim, " channels are too wide");
  STD_TORCH_CHECK(cuda::layer_norm_shared(call.channels) <= cuda::shared_limit(), "attention_block: ", call.channels,
                  " channels are too many");
  const DeviceGuard guard(x.get_device_index());
  const Tensor out = new_rows(x, call.channels, x.size(2));
  for_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    cuda::AttentionBlockArgs<T> args{};
    args.items = x.size(0);
    args.steps = x.size(2);
    args.channels = call.channels;
    args.heads = call.heads;
    args.kv_heads = call.kv_heads;
    args.size = call.head_dim;
    args.hidden = call.hidden;
    args.window = call.window;
    args.eps1 = static_cast<float>(call.eps1);
    args.eps2 = static_cast<float>(call.eps2);
    args.x = view<T>(x, call.channels, "x");
    args.y = rows_view<T>(out);
    args.lengths = maybe_lengths(call.lengths, x);
    args.weight = packed<T>(call.weight, x, args.weights(), "weight");
    args.norms = packed_as<float>(call.norms, x, ScalarType::Float, 4 * args.width(), "norms");
    args.frequencies = packed_as<float>(call.frequencies, x, ScalarType::Float, args.size / 2, "frequencies");
    set_state(args, call);
    const Tensor scratch = torch::stable::new_empty(x, {args.scratch_size()});
    const Tensor rings = torch::stable::new_empty(x, {args.keys ? 0 : args.rings_size()});
    args.scratch = static_cast<T*>(scratch.mutable_data_ptr());
    args.rings = static_cast<T*>(rings.mutable_data_ptr());
    cuda::attention_block(args, current_stream(x));
  });
  check_launch();
  return torch::stable::transpose(out, 1, 2);
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CUDA, m) {
  m.impl("attention_block", fastvoc::boxed<fastvoc::AttentionBlockCall, fastvoc::attention_block>);
}
