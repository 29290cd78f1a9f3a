// Torch's view of convnext_block.
#include "cuda/convnext_block.cuh"

#include "cuda/norm_glue.h"

namespace fastvoc {
namespace {

Tensor convnext_block(const ConvnextBlockCall& call) {
  const Tensor& x = call.x;
  check_input(x);
  STD_TORCH_CHECK(call.kernel % 2 == 1 && call.margin == 0, "convnext_block: expected an odd kernel, and zeros beside");
  const DeviceGuard guard(x.get_device_index());
  const Tensor out = new_rows(x, x.size(1), x.size(2));
  for_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    check_tiles<T>(call.tiles);
    cuda::ConvNextArgs<T> args{};
    args.norm = norm_args<T>(x, call.norm_weight, call.norm_bias, call.row, call.lengths, call.eps);
    args.norm.y = rows_view<T>(out);
    args.norm.kernel = call.kernel;
    const std::int64_t taps = std::int64_t{call.kernel + 1} * args.norm.width;
    args.norm.taps = packed_as<float>(call.depthwise, x, ScalarType::Float, taps, "depthwise");
    args.hidden = call.hidden;
    args.tiles = call.tiles;
    args.weight = packed<T>(call.weight, x, args.weights(), "weight");
    args.expand_bias = packed<T>(call.expand_bias, x, cuda::padded(call.hidden), "expand_bias");
    args.project_bias = packed<T>(call.project_bias, x, cuda::padded(call.channels), "project_bias");
    const Tensor scratch = torch::stable::new_empty(x, {args.scratch_size(x.size(0))});
    args.scratch = static_cast<T*>(scratch.mutable_data_ptr());
    cuda::convnext_block(args, x.size(0), current_stream(x));
  });
  check_launch();
  return torch::stable::transpose(out, 1, 2);
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CUDA, m) {
  m.impl("convnext_block", fastvoc::boxed<fastvoc::ConvnextBlockCall, fastvoc::convnext_block>);
}
