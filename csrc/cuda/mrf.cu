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

}  // namespace fastvoc::cuda

namespace fastvoc {
namespace {

constexpr std::int64_t kTiles = -1;  // the scheme of weights for tiles, of fastvoc/ops/mrf.py

// All but the tensors' memory, checked.
template <class T>
cuda::MrfArgs<T> mrf_shape(std::int64_t channels, const Ints& kernels, const Ints& dilations, const Ints& layers,
                           std::int64_t depth, std::int64_t pad_mode) {
  cuda::MrfArgs<T> args{};
  std::int64_t convs = 0;
  for (std::int64_t n : layers) {
    STD_TORCH_CHECK(n > 0, "mrf: layers: expected one or more in every block, got ", n);
    convs += n * depth;
  }
  STD_TORCH_CHECK(static_cast<std::int64_t>(kernels.size()) == convs && kernels.size() == dilations.size() &&
                      convs > 0 && (depth == 1 || depth == 2),
                  "mrf: kernels, dilations and layers do not fit together");
  STD_TORCH_CHECK(pad_mode >= 0 && pad_mode <= 2, "mrf: unknown padding ", pad_mode);
  args.kernels = kernels;
  args.dilations = dilations;
  args.layers = layers;
  args.depth = depth;
  args.channels = static_cast<int>(channels);
  args.pad = static_cast<cuda::MrfPad>(pad_mode);
  return args;
}

bool mrf_has_tile(Tensor weight, Ints kernels, Ints dilations, Ints layers, std::int64_t depth, std::int64_t pad_mode,
                  Ints kinds) {
  const DeviceGuard guard(weight.get_device_index());
  auto args = mrf_shape<cuda::BFloat16>(weight.size(0), kernels, dilations, layers, depth, pad_mode);
  for (std::int64_t kind : kinds) args.acts.push_back({static_cast<cuda::ActKind>(kind), 0.0f, nullptr, nullptr});
  return cuda::has_tile(args);
}

Tensor mrf(Tensor x, Tensor weight, Tensor bias, MaybeTensor lengths, Ints kernels, Ints dilations, Ints schemes,
           Ints layers, std::int64_t depth, std::int64_t pad_mode, Ints kinds, Doubles slopes, MaybeTensor curves) {
  check_input(x);
  const DeviceGuard guard(x.get_device_index());
  const bool tiles = schemes == Ints(kernels.size(), kTiles);
  STD_TORCH_CHECK(tiles || schemes == Ints(kernels.size(), 0), "CUDA: mrf convolves directly");
  const std::int64_t channels = x.size(1), width = tiles ? cuda::tile_width(channels) : cuda::padded(channels);
  const Tensor out = new_rows(x, channels, x.size(2));
  for_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    auto args = mrf_shape<T>(channels, kernels, dilations, layers, depth, pad_mode);
    args.x = view<T>(x, channels, "x");
    args.y = rows_view<T>(out);
    args.weight = packed<T>(weight, x, args.taps() * width * (tiles ? width : channels), "weight");
    args.bias = packed<T>(bias, x, static_cast<std::int64_t>(kernels.size()) * width, "bias");
    args.lengths = maybe_lengths(lengths, x);
    args.acts = activations(kinds, slopes, curves, x, kernels.size(), [&](std::size_t) { return width; });
    args.items = x.size(0);
    args.steps = x.size(2);
    const std::int64_t floats = tiles ? cuda::mrf_tiles_scratch(args) : cuda::mrf_scratch(args);
    const Tensor scratch = torch::stable::new_empty(x, {floats}, ScalarType::Float);
    args.scratch = scratch.mutable_data_ptr<float>();
    if (!tiles) return cuda::mrf(args, current_stream(x));
    if constexpr (std::is_same_v<T, float>) {
      STD_TORCH_CHECK(false, "CUDA: mrf's tiles compute in float16 and bfloat16");
    } else {
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
  m.impl("mrf", TORCH_BOX(&fastvoc::mrf));
  m.impl("mrf_has_tile", TORCH_BOX(&fastvoc::mrf_has_tile));
}
