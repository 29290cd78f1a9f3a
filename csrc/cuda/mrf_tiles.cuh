// The mean of residual blocks by tensor cores: which tiles, and how many layers of a block one launch takes.
#pragma once

#include "cuda/mrf_args.cuh"
#include "cuda/mrf_tile.cuh"

namespace fastvoc::cuda {

constexpr int kSnakeWidth = 64;  // from which on stages with snakes run in tiles

using Tile16 = TileShape<16, 8, 1, 4, true>;
using Tile32 = TileShape<32, 8, 1, 4, true>;
using Tile64 = TileShape<64, 4, 2, 4, true>;
using Tile128 = TileShape<128, 4, 2, 4, false>;
using SmallTile128 = TileShape<128, 1, 4, 4, false>;
using Tile256 = TileShape<256, 2, 4, 4, false>;
using SmallTile256 = TileShape<256, 1, 8, 4, false>;

// Channels with their padding: a power of two from 16 on, as fastvoc/ops/mrf.py packs them.
inline int tile_width(std::int64_t channels) {
  int width = 16;
  while (width < channels) width *= 2;
  return width;
}

// The convolutions from `first` to `last` of one block in one launch.
struct ChainPlan {
  std::size_t first;
  std::size_t last;
  int lead;
  int made;
  int halo;
};

// How a stage runs in tiles of `rows` rows: the launches of each block. `fits` is false where a tile makes too little.
struct MrfPlan {
  std::vector<std::vector<ChainPlan>> blocks;
  int halo = 0;
  bool fits = true;

  template <class T>
  MrfPlan(const MrfArgs<T>& a, int rows, bool keep) {
    std::size_t conv = 0;
    for (std::int64_t layers : a.layers) {
      const std::size_t convs = static_cast<std::size_t>(layers * a.depth), end = conv + convs;
      ChainPlan whole = chain(a, conv, end, rows);
      auto& launches = blocks.emplace_back();
      // Half of the rows at least must make outputs, or the halo costs more than states of float32 between launches.
      if ((keep || layers == 1) && 2 * whole.made >= rows && convs <= kMaxChain) {
        launches.push_back(whole);
      } else {
        for (std::size_t i = conv; i < end; i += static_cast<std::size_t>(a.depth)) {
          launches.push_back(chain(a, i, i + static_cast<std::size_t>(a.depth), rows));
        }
      }
      for (const ChainPlan& launch : launches) {
        halo = std::max(halo, launch.halo);
        fits = fits && launch.made >= 16;
      }
      conv = end;
    }
  }

 private:
  template <class T>
  static ChainPlan chain(const MrfArgs<T>& a, std::size_t first, std::size_t last, int rows) {
    ChainPlan plan{first, last, 0, rows, a.reach(first)};
    for (std::size_t i = first + 1; i < last; ++i) {
      plan.lead += a.left(i);
      plan.made -= a.reach(i);
    }
    return plan;
  }
};

// Calls run(TileShape{}) with the largest tile of these channels that the device has shared memory for, and returns
// whether there is one.
template <class T, class Run>
bool with_tile(const MrfArgs<T>& a, const Run& run) {
  if (a.pad == MrfPad::kReflect) return false;
  for (const Act& act : a.acts) {
    if (act.kind != a.acts[0].kind || (act.kind != ActKind::kLeaky && act.kind != ActKind::kSnake)) return false;
  }
  const auto attempt = [&](auto shape) {
    using S = decltype(shape);
    if (a.acts[0].kind == ActKind::kSnake && S::kWidth < kSnakeWidth) return false;
    const MrfPlan plan(a, S::kSteps, S::kKeep);
    if (!plan.fits || S::template bytes<T>(plan.halo) > shared_limit()) return false;
    run(shape);
    return true;
  };
  switch (tile_width(a.channels)) {
    case 16:
      return attempt(Tile16{});
    case 32:
      return attempt(Tile32{});
    case 64:
      return attempt(Tile64{});
    case 128:
      return attempt(Tile128{}) || attempt(SmallTile128{});
    case 256:
      return attempt(Tile256{}) || attempt(SmallTile256{});
    default:
      return false;
  }
}

template <class T>
bool has_tile(const MrfArgs<T>& a) {
  return with_tile(a, [](auto) {});
}

// float32 buffers of a whole batch: the sum and two states.
template <class T>
std::int64_t mrf_tiles_scratch(const MrfArgs<T>& a) {
  return 3 * a.items * a.steps * tile_width(a.channels);
}

template <class T, class S>
void launch_chain(const ChainArgs<T>& args, std::int64_t items, Stream stream) {
  const std::int64_t tiles = ceil_div(args.steps, args.made);
  const int bytes = S::template bytes<T>(args.halo);
  if constexpr (S::kWidth >= kSnakeWidth) {
    if (args.conv[0].act.kind == ActKind::kSnake) {
      return launch_blocks(chain_kernel<T, S, ActKind::kSnake>, tiles, items, S::kThreads, bytes, stream, args);
    }
  }
  launch_blocks(chain_kernel<T, S, ActKind::kLeaky>, tiles, items, S::kThreads, bytes, stream, args);
}

// The weights are fragments [taps, width / 16, width / 16, 256], the biases [convs, width].
template <class T>
void mrf_tiles(const MrfArgs<T>& a, Stream stream) {
  const bool ran = with_tile(a, [&](auto shape) {
    using S = decltype(shape);
    const MrfPlan plan(a, S::kSteps, S::kKeep);
    const std::int64_t size = a.items * a.steps * S::kWidth, square = std::int64_t{S::kWidth} * S::kWidth;
    const T* weight = a.weight;
    for (std::size_t block = 0; block < plan.blocks.size(); ++block) {
      const float* state = nullptr;
      for (std::size_t i = 0; i < plan.blocks[block].size(); ++i) {
        const ChainPlan& chain = plan.blocks[block][i];
        const bool ends = i + 1 == plan.blocks[block].size(), last = ends && block + 1 == plan.blocks.size();
        ChainArgs<T> args{};
        args.x = a.x;
        args.y = a.y;
        args.state_in = state;
        args.state_out = ends ? nullptr : a.scratch + (1 + i % 2) * size;
        args.sum_in = ends && block > 0 ? a.scratch : nullptr;
        args.sum_out = ends && !last ? a.scratch : nullptr;
        args.weight = weight;
        args.bias = a.bias + chain.first * S::kWidth;
        args.lengths = a.lengths;
        args.steps = a.steps;
        args.channels = a.channels;
        args.convs = static_cast<int>(chain.last - chain.first);
        args.depth = static_cast<int>(a.depth);
        args.made = chain.made;
        args.lead = chain.lead;
        args.halo = chain.halo;
        args.scale = 1.0f / static_cast<float>(a.layers.size());
        std::int64_t taps = 0;
        for (std::size_t c = chain.first; c < chain.last; ++c) {
          args.conv[c - chain.first] = {static_cast<int>(a.kernels[c]), static_cast<int>(a.dilations[c]), a.left(c),
                                        a.acts[c]};
          taps += a.kernels[c];
        }
        args.weight_steps = taps * (S::kWidth / 16);
        launch_chain<T, S>(args, a.items, stream);
        weight += taps * square;
        state = args.state_out;
      }
    }
  });
  static_cast<void>(ran);
}

}  // namespace fastvoc::cuda
