// Torch's view of layer_norm.
#include "cuda/norm_glue.h"

namespace fastvoc {
namespace {

Tensor layer_norm(Tensor x, Tensor weight, Tensor bias, MaybeTensor row, MaybeTensor lengths, double eps) {
  check_input(x);
  const DeviceGuard guard(x.get_device_index());
  const Tensor out = new_rows(x, x.size(1), x.size(2));
  for_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    auto args = norm_args<T>(x, weight, bias, row, lengths, eps);
    args.y = rows_view<T>(out);
    cuda::layer_norm(args, x.size(0), current_stream(x));
  });
  check_launch();
  return torch::stable::transpose(out, 1, 2);
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CUDA, m) { m.impl("layer_norm", TORCH_BOX(&fastvoc::layer_norm)); }
