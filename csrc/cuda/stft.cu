// Torch's view of stft.
#include "cuda/stft.cuh"

#include "cuda/glue.h"

namespace fastvoc {
namespace {

Tensor stft(Tensor x, Tensor tables, MaybeTensor lengths, Ints, Ints shape) {
  check_input(x);
  STD_TORCH_CHECK(shape.size() == 6, "stft: expected 6 shape values");
  const DeviceGuard guard(x.get_device_index());
  Tensor out;
  for_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    cuda::StftArgs<T> args{};
    args.set(shape.data());
    args.x = view<T>(x, 1, "x");
    args.tables = packed_as<float>(tables, x, ScalarType::Float, 3 * shape[0], "tables");
    args.lengths = maybe_lengths(lengths, x);
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

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CUDA, m) { m.impl("stft", TORCH_BOX(&fastvoc::stft)); }
