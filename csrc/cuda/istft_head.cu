// Torch's view of istft_head.
#include "cuda/istft_head.cuh"

#include "cuda/glue.h"

namespace fastvoc {
namespace {

template <class T, class Out>
Tensor run(const Tensor& x, const Tensor& tables, const MaybeTensor& lengths, const Ints& shape, const Doubles& bounds,
           ScalarType dtype) {
  cuda::IstftHeadArgs<T, Out> args{};
  args.size = static_cast<int>(shape[0]);
  args.hop = static_cast<int>(shape[1]);
  args.left = shape[2];
  args.right = shape[3];
  args.sine = shape[4] != 0;
  args.clip = static_cast<float>(bounds[0]);
  args.clamp = static_cast<float>(bounds[1]);
  args.x = view<T>(x, args.size + 2, "x");
  args.tables = packed_as<float>(tables, x, ScalarType::Float, 4 * shape[0], "tables");
  args.lengths = maybe_lengths(lengths, x);
  args.steps = x.size(2);
  STD_TORCH_CHECK(args.made(args.steps) > 0, "x: ", args.steps, " frames are too few");
  STD_TORCH_CHECK(args.shared() <= cuda::shared_limit(), "istft_head: n_fft ", args.size, " is too large");
  const Tensor frames = torch::stable::new_empty(x, {x.size(0), args.steps, args.size}, ScalarType::Float);
  const Tensor out = torch::stable::new_empty(x, {x.size(0), args.made(args.steps), 1}, dtype);
  args.frames = frames.mutable_data_ptr<float>();
  args.y = static_cast<Out*>(out.mutable_data_ptr());
  cuda::istft_head(args, x.size(0), current_stream(x));
  check_launch();
  return torch::stable::transpose(out, 1, 2);
}

Tensor istft_head(Tensor x, Tensor tables, MaybeTensor lengths, Ints, Ints shape, Doubles bounds) {
  check_input(x);
  STD_TORCH_CHECK(shape.size() == 6 && bounds.size() == 2, "istft_head: expected 6 shape values and 2 bounds");
  const DeviceGuard guard(x.get_device_index());
  Tensor out;
  for_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    out = shape[5] ? run<T, float>(x, tables, lengths, shape, bounds, ScalarType::Float)
                   : run<T, T>(x, tables, lengths, shape, bounds, x.scalar_type());
  });
  return out;
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CUDA, m) { m.impl("istft_head", TORCH_BOX(&fastvoc::istft_head)); }
