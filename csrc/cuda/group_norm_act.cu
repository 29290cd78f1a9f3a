// Torch's view of group_norm_act.
#include "cuda/group_norm_act.cuh"

#include "cuda/glue.h"

namespace fastvoc {
namespace {

Tensor group_norm_act(const GroupNormActCall& call) {
  const Tensor& x = call.x;
  check_input(x);
  const DeviceGuard guard(x.get_device_index());
  const std::int64_t channels = x.size(1), width = cuda::padded(channels);
  const Tensor out = new_rows(x, channels, x.size(2));
  for_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    cuda::GroupNormArgs<T> args{};
    args.x = view<T>(x, channels, "x");
    args.y = rows_view<T>(out);
    args.residual = further<T>(call.residual, x, channels, x.size(2), "residual");
    args.weight = packed_as<float>(call.weight, x, ScalarType::Float, width, "weight");
    args.bias = packed_as<float>(call.bias, x, ScalarType::Float, width, "bias");
    args.lengths = maybe_lengths(call.lengths, x);
    args.steps = x.size(2);
    args.channels = static_cast<int>(channels);
    args.eps = static_cast<float>(call.eps);
    args.act = activations(call, 1, [&](std::size_t) { return width; })[0];
    const Tensor pieces = torch::stable::new_empty(x, {x.size(0), args.max_pieces(), 3}, ScalarType::Float);
    args.pieces = pieces.mutable_data_ptr<float>();
    cuda::group_norm_act(args, x.size(0), current_stream(x));
  });
  check_launch();
  return torch::stable::transpose(out, 1, 2);
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CUDA, m) {
  m.impl("group_norm_act", fastvoc::boxed<fastvoc::GroupNormActCall, fastvoc::group_norm_act>);
}
