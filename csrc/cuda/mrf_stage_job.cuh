// What a launch of the stage kernel gets, how its jobs are cut, and the producer, which streams their weights.
#pragma once

#include "cuda/hopper.cuh"
#include "cuda/mrf_tile.cuh"

namespace fastvoc::cuda {

constexpr int kStageThreads = 384;  // the producer's warpgroup and two consumers'

struct StageConv {
  int kernel;
  int dilation;
  int left;             // steps padded before its input
  int index;            // among all of the stage
  std::int64_t weight;  // offset of its weights
  Act act;              // before it
};

// Convolutions of one block, from [first, first + convs) of the launch's. The run reads `in`, or x where that is null, by its
// first activation unless `activated`; what its first layer adds to is `state`, or x. Its result goes to `out` where that is not
// null, else it is the block's, of which `partial` takes those of runs apart. `in`, `state` and `out` are [items, steps, width].
struct StageRun {
  int first;
  int convs;
  int phase;  // the first one's place in its layer
  int lead;   // steps of the tile's first row before its first output
  int made;   // steps of output of a tile
  int tiles;  // of an item
  int jobs;    // of this run and those before it in a launch of runs apart
  const BFloat16* in;
  const BFloat16* state;
  bool activated;
  BFloat16* out;
  Act out_act;  // of what does not end a layer
  float* partial;
};

// Either each job is one tile of one run, or, `together`, that of all, which then have the same lead, so that a thread has the
// same steps in each: their results add up in `sums` [blocks, rows, width] and become y, scaled.
struct StageArgs {
  View<const BFloat16> x;
  BFloat16* y;
  float* sums;
  const BFloat16* weight;  // [taps, width / 16, width / 8, 2, 8, 8] of every convolution
  const BFloat16* bias;    // [convs, width]
  const std::int64_t* lengths;
  int steps;
  int jobs;
  int channels;
  int depth;
  int halo;  // rows of input beyond the tile's, at most
  int runs;
  bool together;
  bool odd;  // whether a run of an odd number of convolutions is among them
  float scale;
  StageRun run[kMaxRuns];
  StageConv conv[kMaxChain];
};

// Channels, of which a job makes `kColumns`, and how many times 64 rows of a tile a consumer has.
template <int kWidthOf, int kColumnsOf, int kTilesOf>
struct StageShape {
  static constexpr int kWidth = kWidthOf;
  static constexpr int kColumns = kColumnsOf;
  static constexpr int kTiles = kTilesOf;
  static constexpr int kGroupRows = 64 * kTiles;
  static constexpr int kRows = 2 * kGroupRows;
  static constexpr int kSteps = kWidth == 32 || kColumns == 256 ? 2 : 4;  // of 16 channels in a chunk of weights
  static constexpr int kChunks = kWidth / 16 / kSteps;                    // of a tap
  static constexpr int kStepBytes = 16 * kColumns * 2;
  static constexpr int kChunkBytes = kSteps * kStepBytes;
  static constexpr int kSlots = kChunkBytes >= 16384 ? 4 : kChunkBytes == 8192 ? 6 : 12;
  static constexpr int kGroups = kWidth / 8;  // of channels
  static constexpr int kBarriers = kSlots * kChunkBytes;  // where they lie
  static constexpr int kInput = kBarriers + 256;

  // Rows between groups of eight channels, whose banks then differ.
  __host__ __device__ static constexpr int stride(int rows) { return (rows + 7) / 8 * 8 + (kWidth == 32 ? 2 : 1); }
  __host__ __device__ static constexpr int inner(int halo) { return kInput + 16 * kGroups * stride(kRows + halo); }
  // Bytes of shared memory; beyond the last rows lies what halos of rows that nobody needs read.
  __host__ __device__ static constexpr int bytes(int halo) { return inner(halo) + 16 * (kGroups * stride(kRows) + halo); }
};

#if FASTVOC_HOPPER

// A job: its item, its first column, its tile, and its runs.
struct StageJob {
  int item;
  int tile;
  int column;
  int first;
  int last;
};

template <class S>
__device__ inline StageJob stage_job(const StageArgs& a, int job) {
  StageJob made{0, 0, 0, 0, a.runs};
  if (!a.together) {
    while (job >= a.run[made.first].jobs) ++made.first;
    made.last = made.first + 1;
    if (made.first > 0) job -= a.run[made.first - 1].jobs;
  }
  constexpr int kAcross = S::kWidth / S::kColumns;
  made.column = job % kAcross * S::kColumns;
  const int tiles = a.run[made.first].tiles;
  made.tile = job / kAcross % tiles;
  made.item = job / kAcross / tiles;
  return made;
}

__device__ inline int stage_valid(const StageArgs& a, int item) {
  return a.lengths ? static_cast<int>(a.lengths[item]) : a.steps;
}

// Slots of the ring in turn.
template <class S>
struct StageRing {
  int slot = 0;
  unsigned parity = 0;

  __device__ std::uint64_t* full(int i) const {
    return reinterpret_cast<std::uint64_t*>(shared_memory() + S::kBarriers) + i;
  }
  __device__ std::uint64_t* empty(int i) const { return full(S::kSlots + i); }
  __device__ void next() {
    if (++slot == S::kSlots) {
      slot = 0;
      parity ^= 1;
    }
  }
};

template <class S>
__device__ void stage_produce(const StageArgs& a) {
  StageRing<S> ring;
  for (int i = static_cast<int>(blockIdx.x); i < a.jobs; i += static_cast<int>(gridDim.x)) {
    const StageJob job = stage_job<S>(a, i);
    if (job.tile * a.run[job.first].made >= stage_valid(a, job.item)) continue;
    for (int r = job.first; r < job.last; ++r) {
      for (int c = a.run[r].first; c < a.run[r].first + a.run[r].convs; ++c) {
        const BFloat16* from = a.weight + a.conv[c].weight + job.column * 16;
        for (int chunk = 0; chunk < a.conv[c].kernel * S::kChunks; ++chunk) {
          barrier_wait(ring.empty(ring.slot), ring.parity ^ 1);
          barrier_expect(ring.full(ring.slot), S::kChunkBytes);
          unsigned char* const to = shared_memory() + ring.slot * S::kChunkBytes;
          if constexpr (S::kColumns == S::kWidth) {
            copy_bulk(to, from, S::kChunkBytes, ring.full(ring.slot));
          } else {
            for (int k = 0; k < S::kSteps; ++k) {
              copy_bulk(to + k * S::kStepBytes, from + k * 16 * S::kWidth, S::kStepBytes, ring.full(ring.slot));
            }
          }
          from += S::kSteps * 16 * S::kWidth;
          ring.next();
        }
      }
    }
  }
}

// An activation of two neighbouring channels that does not branch: slopes of this kernel are between 0 and 1.
template <ActKind kAct>
struct StageAct {
  float slope;
  float2 alpha;
  float2 inverse;

  // Of `channel`, an even number, and the next.
  __device__ StageAct(const Act& act, int channel) : slope(act.slope) {
    if constexpr (kAct == ActKind::kSnake) {
      alpha = reinterpret_cast<const float2*>(act.alpha)[channel / 2];
      inverse = reinterpret_cast<const float2*>(act.inverse)[channel / 2];
    }
  }

  __device__ float2 operator()(float2 v) const {
    if constexpr (kAct == ActKind::kLeaky) return {fmaxf(v.x, slope * v.x), fmaxf(v.y, slope * v.y)};
    return {fmaf(sin_squared(alpha.x * v.x), inverse.x, v.x), fmaf(sin_squared(alpha.y * v.y), inverse.y, v.y)};
  }
};

// From a channel on, so that those after it are at constant distances.
template <ActKind kAct>
__device__ inline Act act_from(const Act& act, int channel) {
  if constexpr (kAct != ActKind::kSnake) return act;
  return {act.kind, act.slope, act.alpha + channel, act.inverse + channel};
}

#endif

}  // namespace fastvoc::cuda
