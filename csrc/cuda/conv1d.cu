// Torch's view of conv1d.
#include "cuda/conv.cuh"
#include "cuda/glue.h"

namespace fastvoc {
namespace {

Tensor conv1d(const Conv1dCall& call) {
  const Tensor& x = call.x;
  STD_TORCH_CHECK(call.pad >= 0 && call.pad <= 2, "conv1d: unknown padding ", call.pad);
  check_input(x);
  const DeviceGuard guard(x.get_device_index());
  const auto acts = activations(call, 2, [&](std::size_t i) { return cuda::padded(i == 0 ? call.cin : call.cout); });
  Tensor out;
  for_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    check_tiles<T>(call.tiles);
    cuda::convolve<T>(call, x.size(0), current_stream(x), [&](auto& args) {
      set_common<T>(args, call);
      args.pre = acts[0];
      args.post = acts[1];
      args.residual = further<T>(call.residual, x, args.cout, args.made(args.steps), "residual");
      out = new_rows(x, args.cout, args.made(args.steps));
      args.y = rows_view<T>(out);
    });
  });
  check_launch();
  return torch::stable::transpose(out, 1, 2);
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CUDA, m) { m.impl("conv1d", fastvoc::boxed<fastvoc::Conv1dCall, fastvoc::conv1d>); }
