// Torch's view of lvc.
#include "cuda/lvc.cuh"

#include "cuda/glue.h"

namespace fastvoc {
namespace {

Tensor lvc(const LvcCall& call) {
  const Tensor &x = call.x, &kernels = call.kernels, &biases = call.biases;
  const std::int64_t hop = call.hop;
  check_input(x);
  check_like(kernels, x, "kernels");
  check_like(biases, x, "biases");
  STD_TORCH_CHECK(kernels.dim() == 5 && kernels.size(0) == x.size(0) && kernels.size(1) % 2 == 1 && hop > 0 &&
                      (!call.gated || kernels.size(3) % 2 == 0),
                  "kernels: expected [B, odd K, C_in, C_out, L], with an even C_out for a gate");
  STD_TORCH_CHECK(x.size(2) == kernels.size(4) * hop, "x: expected ", kernels.size(4) * hop, " steps for the kernels");
  STD_TORCH_CHECK(biases.size(0) == x.size(0) && biases.size(2) == kernels.size(4), "biases: expected [B, C_out, L]");
  const DeviceGuard guard(x.get_device_index());
  Tensor out;
  for_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    cuda::LvcArgs<T> args{};
    args.taps = static_cast<int>(kernels.size(1));
    args.cin = static_cast<int>(kernels.size(2));
    args.cout = static_cast<int>(kernels.size(3));
    args.frames = kernels.size(4);
    args.hop = hop;
    args.gated = call.gated;
    args.x = view<T>(x, args.cin, "x");
    args.biases = view<T>(biases, args.cout, "biases");
    args.kernels = static_cast<const T*>(kernels.const_data_ptr());
    args.kernel_item = kernels.stride(0);
    args.kernel_tap = kernels.stride(1);
    args.kernel_in = kernels.stride(2);
    args.kernel_out = kernels.stride(3);
    args.kernel_frame = kernels.stride(4);
    args.lengths = maybe_lengths(call.lengths, x);
    args.residual = further<T>(call.residual, x, args.made(), x.size(2), "residual");
    out = new_rows(x, args.made(), x.size(2));
    args.y = rows_view<T>(out);
    cuda::lvc(args, x.size(0), current_stream(x));
  });
  check_launch();
  return torch::stable::transpose(out, 1, 2);
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CUDA, m) { m.impl("lvc", fastvoc::boxed<fastvoc::LvcCall, fastvoc::lvc>); }
