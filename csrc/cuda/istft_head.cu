// Torch's view of istft_head.
#include "cuda/istft_head.cuh"

#include "cuda/glue.h"

namespace fastvoc {
namespace {

template <class T, class Out>
Tensor run(const IstftHeadCall& call, ScalarType dtype) {
  const Tensor& x = call.x;
  cuda::IstftHeadArgs<T, Out> args{};
  args.set_size(call.size);
  args.hop = call.hop;
  args.left = call.left;
  args.right = call.right;
  args.sine = call.sine;
  args.clip = static_cast<float>(call.clip);
  args.clamp = static_cast<float>(call.clamp);
  args.x = view<T>(x, args.size + 2, "x");
  args.tables = packed_as<float>(call.tables, x, ScalarType::Float, std::int64_t{4} * call.size, "tables");
  args.lengths = maybe_lengths(call.lengths, x);
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

Tensor istft_head(const IstftHeadCall& call) {
  check_input(call.x);
  const DeviceGuard guard(call.x.get_device_index());
  Tensor out;
  for_dtype(call.x, [&](auto zero) {
    using T = decltype(zero);
    out = call.wide ? run<T, float>(call, ScalarType::Float) : run<T, T>(call, call.x.scalar_type());
  });
  return out;
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CUDA, m) {
  m.impl("istft_head", fastvoc::boxed<fastvoc::IstftHeadCall, fastvoc::istft_head>);
}
