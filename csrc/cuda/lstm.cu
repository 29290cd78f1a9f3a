// Torch's view of lstm.
#include "cuda/glue.h"
#include "cuda/lstm_layers.cuh"

namespace fastvoc {
namespace {

float* state_of(const MaybeTensor& t, const Tensor& x, std::int64_t floats, const char* name) {
  if (!t) return nullptr;
  packed_as<float>(*t, x, ScalarType::Float, floats, name);
  return static_cast<float*>(t->mutable_data_ptr());
}

Tensor lstm(const LstmCall& call) {
  const Tensor& x = call.x;
  check_input(x);
  STD_TORCH_CHECK(call.h.has_value() == call.c.has_value(), "lstm: expected both parts of the state, or none");
  const DeviceGuard guard(x.get_device_index());
  const std::int64_t entries = std::int64_t{call.layers} * call.directions, hidden = call.hidden;
  const Tensor out = new_rows(x, hidden * call.directions, x.size(2));
  const Tensor barriers = torch::stable::new_empty(x, {x.size(0)}, ScalarType::Int);
  for_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    cuda::LstmLayersArgs<T> args{};
    args.layers = call.layers;
    args.inputs = call.inputs;
    args.hidden = call.hidden;
    args.directions = call.directions;
    args.skip = call.skip;
    args.x = view<T>(x, call.inputs, "x");
    args.y = rows_view<T>(out);
    args.w = packed<T>(call.weight, x, args.all_weights(), "weight");
    args.bias = packed_as<float>(call.bias, x, ScalarType::Float, entries * cuda::kGates * hidden, "bias");
    args.h = state_of(call.h, x, entries * x.size(0) * hidden, "h");
    args.c = state_of(call.c, x, entries * x.size(0) * hidden, "c");
    args.lengths = maybe_lengths(call.lengths, x);
    args.items = x.size(0);
    args.steps = x.size(2);
    const Tensor scratch = torch::stable::new_empty(x, {cuda::lstm_scratch(args)}, ScalarType::Float);
    args.scratch = scratch.mutable_data_ptr<float>();
    args.barriers = static_cast<unsigned*>(barriers.mutable_data_ptr());
    STD_TORCH_CHECK(cuda::lstm(args, current_stream(x)), "lstm: ", hidden, " units are too many for this device");
  });
  check_launch();
  return torch::stable::transpose(out, 1, 2);
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CUDA, m) { m.impl("lstm", fastvoc::boxed<fastvoc::LstmCall, fastvoc::lstm>); }
