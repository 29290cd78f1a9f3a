// The mean of residual blocks by tensor cores: which tiles, and how many layers and blocks one launch takes.
#pragma once

#include <array>

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

// The convolutions from `first` to `last`, which are layers of one block.
struct RunPlan {
  std::size_t first;
  std::size_t last;
  int lead;   // as in ChainRun
  int reach;  // rows that the convolutions after the first lose
  int halo;   // rows that the first reads beyond those that it makes
  std::int64_t taps;
};

// The runs of one launch; an aggregate without a destructor, which a library would export.
struct LaunchPlan {
  std::array<RunPlan, kMaxRuns> run;
  std::size_t runs;
  int made;
  int halo;
  bool begins;  // blocks
  bool ends;
};

// How a stage runs in tiles of `rows` rows, whose residual stays in registers with `keep`. What it rounds does not depend on it.
struct MrfPlan {
  std::vector<LaunchPlan> launches;
  int halo = 0;
  bool fits = true;        // whether every tile makes enough
  bool rereads = false;    // whether tiles keep residuals in memory
  std::int64_t least = 0;  // steps that a tile makes at least

  template <class T>
  MrfPlan(const MrfArgs<T>& a, int rows, bool keep) {
    std::size_t conv = 0;
    for (std::int64_t layers : a.layers) {
      const std::size_t end = conv + static_cast<std::size_t>(layers * a.depth);
      add_block(a, conv, end, rows, keep);
      conv = end;
    }
    if (keep) join(rows);
    least = rows;
    for (const LaunchPlan& launch : launches) {
      halo = std::max(halo, launch.halo);
      fits = fits && launch.made >= 16;
      least = std::min<std::int64_t>(least, launch.made);
      for (std::size_t i = 0; i < launch.runs; ++i) {
        rereads |= !keep && launch.run[i].last - launch.run[i].first > static_cast<std::size_t>(a.depth);
      }
    }
  }

 private:
  // A launch takes as many layers as leave three quarters of the rows for outputs, or the whole block where the residual stays
  // in registers and half of them are left: more halo would cost more than residuals that pass through memory.
  template <class T>
  void add_block(const MrfArgs<T>& a, std::size_t conv, std::size_t end, int rows, bool keep) {
    const auto layer = static_cast<std::size_t>(a.depth);
    const RunPlan whole = run(a, conv, end);
    if (keep && 2 * whole.reach <= rows && end - conv <= kMaxChain) {
      launches.push_back({{whole}, 1, rows - whole.reach, whole.halo, true, true});
      return;
    }
    for (std::size_t first = conv; first < end;) {
      RunPlan group = run(a, first, first + layer);
      while (group.last < end && group.last - first + layer <= kMaxChain) {
        const RunPlan more = run(a, first, group.last + layer);
        if (4 * more.reach > rows) break;
        group = more;
      }
      launches.push_back({{group}, 1, rows - group.reach, group.halo, first == conv, group.last == end});
      first = group.last;
    }
  }

  // Blocks that are one launch each become one together where the common halo costs a tenth of the work at most.
  void join(int rows) {
    std::size_t convs = 0;
    int reach = 0, halo_rows = 0;
    double apart = 0.0, taps = 0.0;
    for (const LaunchPlan& launch : launches) {
      if (!launch.begins || !launch.ends || launch.made <= 0) return;
      const RunPlan& run = launch.run[0];
      convs += run.last - run.first;
      reach = std::max(reach, run.reach);
      halo_rows = std::max(halo_rows, run.halo);
      apart += static_cast<double>(run.taps) / launch.made;
      taps += static_cast<double>(run.taps);
    }
    if (launches.size() > kMaxRuns || convs > kMaxChain || taps / (rows - reach) > 1.1 * apart) return;
    LaunchPlan all{{}, 0, rows - reach, halo_rows, true, true};
    for (const LaunchPlan& launch : launches) all.run[all.runs++] = launch.run[0];
    launches = {all};
  }

  template <class T>
  static RunPlan run(const MrfArgs<T>& a, std::size_t first, std::size_t last) {
    RunPlan plan{first, last, 0, 0, a.reach(first), 0};
    for (std::size_t i = first; i < last; ++i) {
      plan.taps += a.kernels[i];
      if (i == first) continue;
      plan.lead += a.left(i);
      plan.reach += a.reach(i);
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

// float32 numbers: of the sum and two states, and what tiles keep for themselves.
template <class T>
std::int64_t mrf_tiles_scratch(const MrfArgs<T>& a) {
  std::int64_t rows = 3 * a.steps;
  with_tile(a, [&](auto shape) {
    using S = decltype(shape);
    const MrfPlan plan(a, S::kSteps, S::kKeep);
    if (plan.rereads) rows += ceil_div(a.steps, plan.least) * S::kSteps;
  });
  return rows * a.items * tile_width(a.channels);
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
    const float* state = nullptr;
    bool adds = false;
    for (std::size_t i = 0; i < plan.launches.size(); ++i) {
      const LaunchPlan& launch = plan.launches[i];
      ChainArgs<T> args{};
      args.x = a.x;
      args.y = a.y;
      args.state_in = launch.begins ? nullptr : state;
      args.state_out = launch.ends ? nullptr : a.scratch + (1 + i % 2) * size;
      args.sum = a.scratch;
      args.tiles = a.scratch + 3 * size;
      args.weight = weight;
      args.bias = a.bias + launch.run[0].first * S::kWidth;
      args.lengths = a.lengths;
      args.steps = a.steps;
      args.channels = a.channels;
      args.depth = static_cast<int>(a.depth);
      args.made = launch.made;
      args.halo = launch.halo;
      args.runs = static_cast<int>(launch.runs);
      args.adds = adds;
      args.ends = i + 1 == plan.launches.size();
      args.scale = 1.0f / static_cast<float>(a.layers.size());
      std::int64_t taps = 0;
      ChainConv* conv = args.conv;
      for (std::size_t r = 0; r < launch.runs; ++r) {
        const RunPlan& run = launch.run[r];
        args.run[r] = {static_cast<int>(run.last - run.first), run.lead, launch.made + run.reach};
        taps += run.taps;
        for (std::size_t c = run.first; c < run.last; ++c) {
          *conv++ = {static_cast<int>(a.kernels[c]), static_cast<int>(a.dilations[c]), a.left(c), a.acts[c]};
        }
      }
      args.weight_steps = taps * (S::kWidth / 16);
      launch_chain<T, S>(args, a.items, stream);
      weight += taps * square;
      state = args.state_out;
      adds |= launch.ends;
    }
  });
  static_cast<void>(ran);
}

}  // namespace fastvoc::cuda
