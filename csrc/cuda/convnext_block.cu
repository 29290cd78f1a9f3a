// Torch's view of convnext_block.
#include "cuda/convnext_block.cuh"

#include "cuda/norm_glue.h"

namespace fastvoc {
namespace {

Tensor convnext_block(Tensor x, Tensor depthwise, Tensor norm_weight, Tensor norm_bias, Tensor weight,
                      Tensor expand_bias, Tensor project_bias, MaybeTensor row, MaybeTensor lengths, Ints shape,
                      double eps) {
  check_input(x);
  STD_TORCH_CHECK(shape.size() == 5, "convnext_block: expected 5 shape values");
  STD_TORCH_CHECK(shape[2] % 2 == 1 && shape[4] == 0, "convnext_block: expected an odd kernel, and zeros beside");
  const DeviceGuard guard(x.get_device_index());
  const Tensor out = new_rows(x, x.size(1), x.size(2));
  for_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    check_tiles<T>(shape[3]);
    cuda::ConvNextArgs<T> args{};
    args.norm = norm_args<T>(x, norm_weight, norm_bias, row, lengths, eps);
    args.norm.y = rows_view<T>(out);
    args.norm.kernel = static_cast<int>(shape[2]);
    const std::int64_t taps = (shape[2] + 1) * args.norm.width;
    args.norm.taps = packed_as<float>(depthwise, x, ScalarType::Float, taps, "depthwise");
    args.hidden = static_cast<int>(shape[1]);
    args.tiles = shape[3] != 0;
    args.weight = packed<T>(weight, x, args.weights(), "weight");
    args.expand_bias = packed<T>(expand_bias, x, cuda::padded(shape[1]), "expand_bias");
    args.project_bias = packed<T>(project_bias, x, cuda::padded(shape[0]), "project_bias");
    const Tensor scratch = torch::stable::new_empty(x, {args.scratch_size(x.size(0))});
    args.scratch = static_cast<T*>(scratch.mutable_data_ptr());
    cuda::convnext_block(args, x.size(0), current_stream(x));
  });
  check_launch();
  return torch::stable::transpose(out, 1, 2);
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CUDA, m) { m.impl("convnext_block", TORCH_BOX(&fastvoc::convnext_block)); }
