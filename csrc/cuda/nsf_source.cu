// Torch's view of nsf_source.
#include "cuda/nsf_source.cuh"

#include "cuda/glue.h"

namespace fastvoc {
namespace {

Tensor nsf_source(const NsfSourceCall& call) {
  const Tensor& f0 = call.f0;
  const MaybeTensor &state = call.state, &phase = call.phase;
  check_input(f0, "f0");
  STD_TORCH_CHECK(call.rate >= 1 && call.hop >= 1, "nsf_source: expected a positive rate and hop");
  const DeviceGuard guard(f0.get_device_index());
  const std::int64_t items = f0.size(0), steps = f0.size(2), rows = call.weight.numel();
  const Tensor scratch = torch::stable::new_empty(f0, {items * (rows + 1 + steps)}, ScalarType::Long);
  const Tensor out = torch::stable::new_empty(f0, {items, steps * call.hop, 1});
  for_dtype(f0, [&](auto zero) {
    using T = decltype(zero);
    cuda::NsfSourceArgs<T> args{};
    args.f0 = view<T>(f0, 1, "f0");
    args.y = static_cast<T*>(out.mutable_data_ptr());
    args.weight = packed<T>(call.weight, f0, rows, "weight");
    args.bias = packed<T>(call.bias, f0, 1, "bias");
    args.begin = static_cast<std::uint64_t*>(scratch.mutable_data_ptr());
    args.totals = args.begin + items * (rows + 1);
    if (state) {
      packed_as<std::int64_t>(*state, f0, ScalarType::Long, items * (rows + 1), "state");
      args.state = static_cast<std::uint64_t*>(state->mutable_data_ptr());
    }
    if (phase) {
      check_like(*phase, f0, "phase");
      STD_TORCH_CHECK(phase->dim() == 2 && phase->size(0) == items && phase->size(1) == rows, "phase: wrong shape");
      args.phase = {static_cast<const T*>(phase->const_data_ptr()), phase->stride(0), phase->stride(1), 0};
    }
    if (call.seed) args.seed = packed_as<std::int64_t>(*call.seed, f0, ScalarType::Long, items, "seed");
    args.noise = further<T>(call.noise, f0, rows, steps * call.hop, "noise");
    args.lengths = maybe_lengths(call.lengths, f0);
    args.frames = maybe_lengths(call.frames, f0);
    args.steps = steps;
    args.hop = call.hop;
    args.rate = static_cast<double>(call.rate);
    args.rows = static_cast<int>(rows);
    args.kind = static_cast<cuda::NsfKind>(call.kind);
    args.drawn = static_cast<cuda::NsfNoise>(call.drawn);
    args.amp = static_cast<float>(call.amp);
    args.noise_std = static_cast<float>(call.noise_std);
    args.threshold = static_cast<float>(call.threshold);
    cuda::nsf_source(args, items, current_stream(f0));
  });
  check_launch();
  return torch::stable::transpose(out, 1, 2);
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CUDA, m) {
  m.impl("nsf_source", fastvoc::boxed<fastvoc::NsfSourceCall, fastvoc::nsf_source>);
}
