// Torch's view of nsf_source.
#include "cuda/nsf_source.cuh"

#include "cuda/glue.h"

namespace fastvoc {
namespace {

Tensor nsf_source(Tensor f0, Tensor weight, Tensor bias, MaybeTensor state, MaybeTensor phase, MaybeTensor seed,
                  MaybeTensor noise, MaybeTensor lengths, MaybeTensor frames, Ints shape, Doubles levels) {
  check_input(f0, "f0");
  STD_TORCH_CHECK(shape.size() == 4 && levels.size() == 3, "nsf_source: expected 4 shape values and 3 levels");
  STD_TORCH_CHECK(shape[0] >= 1 && shape[1] >= 1, "nsf_source: expected a positive rate and hop");
  const DeviceGuard guard(f0.get_device_index());
  const std::int64_t items = f0.size(0), steps = f0.size(2), rows = weight.numel();
  const Tensor scratch = torch::stable::new_empty(f0, {items * (rows + 1 + steps)}, ScalarType::Long);
  const Tensor out = torch::stable::new_empty(f0, {items, steps * shape[1], 1});
  for_dtype(f0, [&](auto zero) {
    using T = decltype(zero);
    cuda::NsfSourceArgs<T> args{};
    args.f0 = view<T>(f0, 1, "f0");
    args.y = static_cast<T*>(out.mutable_data_ptr());
    args.weight = packed<T>(weight, f0, rows, "weight");
    args.bias = packed<T>(bias, f0, 1, "bias");
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
    if (seed) args.seed = packed_as<std::int64_t>(*seed, f0, ScalarType::Long, items, "seed");
    if (noise) {
      check_like(*noise, f0, "noise");
      args.noise = view<T>(*noise, rows, "noise");
      STD_TORCH_CHECK(noise->size(0) == items && noise->size(2) == steps * shape[1], "noise: wrong shape");
    }
    args.lengths = maybe_lengths(lengths, f0);
    args.frames = maybe_lengths(frames, f0);
    args.steps = steps;
    args.hop = shape[1];
    args.rate = static_cast<double>(shape[0]);
    args.rows = static_cast<int>(rows);
    args.kind = static_cast<cuda::NsfKind>(shape[2]);
    args.drawn = static_cast<cuda::NsfNoise>(shape[3]);
    args.amp = static_cast<float>(levels[0]);
    args.noise_std = static_cast<float>(levels[1]);
    args.threshold = static_cast<float>(levels[2]);
    cuda::nsf_source(args, items, current_stream(f0));
  });
  check_launch();
  return torch::stable::transpose(out, 1, 2);
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CUDA, m) { m.impl("nsf_source", TORCH_BOX(&fastvoc::nsf_source)); }
