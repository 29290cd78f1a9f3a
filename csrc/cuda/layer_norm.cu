// Torch's view of layer_norm.
#include "cuda/norm_glue.h"

namespace fastvoc {
namespace {

Tensor layer_norm(const LayerNormCall& call) {
  const Tensor& x = call.x;
  check_input(x);
  const DeviceGuard guard(x.get_device_index());
  const Tensor out = new_rows(x, x.size(1), x.size(2));
  for_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    auto args = norm_args<T>(x, call.weight, call.bias, call.row, call.lengths, call.eps);
    args.y = rows_view<T>(out);
    cuda::layer_norm(args, x.size(0), current_stream(x));
  });
  check_launch();
  return torch::stable::transpose(out, 1, 2);
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CUDA, m) {
  m.impl("layer_norm", fastvoc::boxed<fastvoc::LayerNormCall, fastvoc::layer_norm>);
}
