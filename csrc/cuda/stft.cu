// Torch's view of stft.
#include "cuda/stft.cuh"

#include "cuda/glue.h"

namespace fastvoc {
namespace {

Tensor stft(const StftCall& call) {
  const Tensor& x = call.x;
  check_input(x);
  const DeviceGuard guard(x.get_device_index());
  Tensor out;
  for_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    cuda::StftArgs<T> args{};
    args.size = call.size;
    args.hop = call.hop;
    args.left = call.left;
    args.right = call.right;
    args.pad = static_cast<cuda::Pad>(call.pad);
    args.polar = call.polar;
    args.first_is_real = call.first_is_real;
    args.x = view<T>(x, 1, "x");
    args.tables = packed_as<float>(call.tables, x, ScalarType::Float, std::int64_t{3} * call.size, "tables");
    args.lengths = maybe_lengths(call.lengths, x);
    args.steps = x.size(2);
    STD_TORCH_CHECK(args.shared() <= cuda::shared_limit(), "stft: n_fft ", args.size, " is too large");
    out = new_rows(x, args.size + 2, args.made(args.steps));
    args.y = static_cast<T*>(out.mutable_data_ptr());
    cuda::stft(args, x.size(0), current_stream(x));
  });
  check_launch();
  return torch::stable::transpose(out, 1, 2);
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CUDA, m) { m.impl("stft", fastvoc::boxed<fastvoc::StftCall, fastvoc::stft>); }
