// Torch's view of mrf.
#include "cuda/mrf.cuh"

#include "cuda/glue.h"
#include "cuda/mrf_units.cuh"

namespace fastvoc::cuda {

FASTVOC_MRF_TILE(extern, Tile16)
FASTVOC_MRF_TILE(extern, Tile32)
FASTVOC_MRF_TILE(extern, Tile64)
FASTVOC_MRF_TILE(extern, Tile128)
FASTVOC_MRF_TILE(extern, SmallTile128)
FASTVOC_MRF_TILE(extern, Tile256)
FASTVOC_MRF_TILE(extern, SmallTile256)
FASTVOC_MRF_STAGE(extern, Stage32)
FASTVOC_MRF_STAGE(extern, HalfStage32)
FASTVOC_MRF_STAGE(extern, SmallStage32)
FASTVOC_MRF_STAGE(extern, Stage64)
FASTVOC_MRF_STAGE(extern, HalfStage64)
FASTVOC_MRF_STAGE(extern, SmallStage64)
FASTVOC_MRF_STAGE(extern, Stage128)
FASTVOC_MRF_STAGE(extern, HalfStage128)
FASTVOC_MRF_STAGE(extern, SmallStage128)
FASTVOC_MRF_STAGE(extern, LeastStage128)
FASTVOC_MRF_STAGE(extern, Stage256)
FASTVOC_MRF_STAGE(extern, SmallStage256)
FASTVOC_MRF_STAGE(extern, LeastStage256)

}  // namespace fastvoc::cuda

namespace fastvoc {
namespace {

constexpr std::int64_t kTiles = -1, kStage = -2;  // schemes of weights for tiles and for the stage kernel, of fastvoc/ops/mrf.py
constexpr std::int64_t kMaxSteps = std::int64_t{1} << 30;  // of the stage kernel's

// All but the tensors' memory and the activations, checked.
template <class T>
cuda::MrfArgs<T> mrf_shape(const MrfPacked& stage) {
  cuda::MrfArgs<T> args{};
  std::int64_t convs = 0;
  for (std::int64_t n : stage.layers) {
    STD_TORCH_CHECK(n > 0, "mrf: layers: expected one or more in every block, got ", n);
    convs += n * stage.depth;
  }
  STD_TORCH_CHECK(static_cast<std::int64_t>(stage.kernels.size()) == convs &&
                      stage.kernels.size() == stage.dilations.size() && convs > 0 && (stage.depth == 1 || stage.depth == 2),
                  "mrf: kernels, dilations and layers do not fit together");
  STD_TORCH_CHECK(stage.pad >= 0 && stage.pad <= 2, "mrf: unknown padding ", stage.pad);
  args.kernels = stage.kernels;
  args.dilations = stage.dilations;
  args.layers = stage.layers;
  args.depth = stage.depth;
  args.channels = stage.channels;
  args.pad = static_cast<cuda::MrfPad>(stage.pad);
  return args;
}

// Whether `has` a kernel for it.
bool mrf_has(const MrfPacked& call, bool (&has)(const cuda::MrfArgs<cuda::BFloat16>&)) {
  const DeviceGuard guard(call.weight.get_device_index());
  auto args = mrf_shape<cuda::BFloat16>(call);
  for (std::size_t i = 0; i < call.kinds.size(); ++i) {
    const auto kind = static_cast<cuda::ActKind>(call.kinds[i]);
    args.acts.push_back({kind, static_cast<float>(call.slopes[i]), nullptr, nullptr});
  }
  return has(args);
}

bool mrf_has_tile(const MrfHasTileCall& call) { return mrf_has(call, cuda::has_tile<cuda::BFloat16>); }
bool mrf_has_stage(const MrfHasStageCall& call) { return mrf_has(call, cuda::has_stage<cuda::BFloat16>); }

Tensor mrf(const MrfCall& call) {
  const Tensor& x = call.x;
  check_input(x);
  const DeviceGuard guard(x.get_device_index());
  const std::size_t convs = call.kernels.size();
  const bool stage = call.schemes == Ints(convs, kStage), tiles = stage || call.schemes == Ints(convs, kTiles);
  STD_TORCH_CHECK(tiles || call.schemes == Ints(convs, 0), "CUDA: mrf convolves directly");
  STD_TORCH_CHECK(!stage || x.scalar_type() == ScalarType::BFloat16, "CUDA: mrf's stage kernel computes in bfloat16");
  STD_TORCH_CHECK(!stage || x.size(2) <= kMaxSteps, "x: expected at most ", kMaxSteps, " steps, got ", x.size(2));
  const std::int64_t channels = call.channels, width = tiles ? cuda::tile_width(channels) : cuda::padded(channels);
  const Tensor out = new_rows(x, channels, x.size(2));
  for_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    auto args = mrf_shape<T>(call);
    args.x = view<T>(x, channels, "x");
    args.y = rows_view<T>(out);
    args.weight = packed<T>(call.weight, x, args.taps() * width * (tiles ? width : channels), "weight");
    args.bias = packed<T>(call.bias, x, static_cast<std::int64_t>(convs) * width, "bias");
    args.lengths = maybe_lengths(call.lengths, x);
    args.acts = activations(call, convs, [&](std::size_t) { return width; });
    args.items = x.size(0);
    args.steps = x.size(2);
    const std::int64_t floats = stage ? cuda::mrf_stage_scratch(args) : tiles ? cuda::mrf_tiles_scratch(args) : cuda::mrf_scratch(args);
    const Tensor scratch = torch::stable::new_empty(x, {floats}, ScalarType::Float);
    args.scratch = scratch.mutable_data_ptr<float>();
    if (!tiles) return cuda::mrf(args, current_stream(x));
    if constexpr (std::is_same_v<T, float>) {
      STD_TORCH_CHECK(false, "CUDA: mrf's tiles compute in float16 and bfloat16");
    } else {
      if constexpr (std::is_same_v<T, cuda::BFloat16>) {
        STD_TORCH_CHECK(!stage || cuda::has_stage(args), "CUDA: mrf's stage kernel does not run on this device");
        if (stage) return cuda::mrf_stage(args, current_stream(x));
      }
      STD_TORCH_CHECK(cuda::has_tile(args), "CUDA: no tile of mrf fits this device");
      cuda::mrf_tiles(args, current_stream(x));
    }
  });
  check_launch();
  return torch::stable::transpose(out, 1, 2);
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CUDA, m) {
  m.impl("mrf", fastvoc::boxed<fastvoc::MrfCall, fastvoc::mrf>);
  m.impl("mrf_has_tile", fastvoc::boxed<fastvoc::MrfHasTileCall, fastvoc::mrf_has_tile>);
  m.impl("mrf_has_stage", fastvoc::boxed<fastvoc::MrfHasStageCall, fastvoc::mrf_has_stage>);
}
