// Torch's view of adain.
#include "cuda/adain.cuh"

#include "cuda/glue.h"

namespace fastvoc {
namespace {

Tensor adain(const AdainCall& call) {
  const Tensor &x = call.x, &style = call.style;
  check_input(x);
  const DeviceGuard guard(x.get_device_index());
  const std::int64_t channels = x.size(1), width = cuda::padded(channels);
  STD_TORCH_CHECK(style.is_cuda() && style.get_device_index() == x.get_device_index() &&
                      style.scalar_type() == ScalarType::Float && style.dim() == 3 && style.size(0) == x.size(0) &&
                      style.size(1) == 2 * channels && style.size(2) == 1,
                  "style: expected float32 [B, 2 * C, 1] on x's device");
  const Tensor out = new_rows(x, channels, x.size(2));
  for_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    cuda::AdaInArgs<T> args{};
    args.x = view<T>(x, channels, "x");
    args.y = rows_view<T>(out);
    args.weight = packed_as<float>(call.weight, x, ScalarType::Float, width, "weight");
    args.bias = packed_as<float>(call.bias, x, ScalarType::Float, width, "bias");
    args.style = style.const_data_ptr<float>();
    args.style_item = style.stride(0);
    args.style_value = style.stride(1);
    args.lengths = maybe_lengths(call.lengths, x);
    args.steps = x.size(2);
    args.channels = static_cast<int>(channels);
    args.eps = static_cast<float>(call.eps);
    args.act = activations(call, 1, [&](std::size_t) { return width; })[0];
    const Tensor pieces = torch::stable::new_empty(x, {x.size(0), args.max_pieces(), 3, channels}, ScalarType::Float);
    args.pieces = pieces.mutable_data_ptr<float>();
    cuda::adain(args, x.size(0), current_stream(x));
  });
  check_launch();
  return torch::stable::transpose(out, 1, 2);
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CUDA, m) { m.impl("adain", fastvoc::boxed<fastvoc::AdainCall, fastvoc::adain>); }
