// Torch's view of upsample.
#include "cuda/conv.cuh"
#include "cuda/glue.h"

namespace fastvoc {
namespace {

Tensor upsample(const UpsampleCall& call) {
  const Tensor& x = call.x;
  STD_TORCH_CHECK(call.left >= 0, "upsample: the left crop must not be negative");
  check_input(x);
  const DeviceGuard guard(x.get_device_index());
  const auto acts = activations(call, 1, [&](std::size_t) { return cuda::padded(call.cin); });
  Tensor out;
  for_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    check_tiles<T>(call.tiles);
    cuda::convolve_transposed<T>(call, x.size(0), current_stream(x), [&](auto& args) {
      set_common<T>(args, call);
      args.pre = acts[0];
      out = new_rows(x, args.cout, args.made(args.steps));
      args.y = rows_view<T>(out);
    });
  });
  check_launch();
  return torch::stable::transpose(out, 1, 2);
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CUDA, m) {
  m.impl("upsample", fastvoc::boxed<fastvoc::UpsampleCall, fastvoc::upsample>);
}
