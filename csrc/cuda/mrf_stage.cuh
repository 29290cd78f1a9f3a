// Residual blocks, or some layers of them, by Hopper's products of warpgroups: a producer streams the weights, two consumers
// have half of a tile's rows each, one a little ahead, so that the epilogue of one hides behind the products of the other.
#pragma once

#include "cuda/mrf_stage_job.cuh"

namespace fastvoc::cuda {

#if FASTVOC_HOPPER

// A consumer: rows [group * kGroupRows, (group + 1) * kGroupRows) of the tile, of which this thread has two in each 64.
//
// Every write to shared memory, of a run's input and of every convolution's output but the last, is a turn. The second consumer
// begins a convolution when the first one's turn before it is over; the first consumer needs the second one's only for taps
// that reach beyond its own rows, and before it overwrites what the second one reads.
template <class S, ActKind kAct>
class StageConsumer {
 public:
  __device__ StageConsumer(const StageArgs& args, int group)
      : a(args), group_(group), lane_(static_cast<int>(threadIdx.x % 32)) {
    row_ = group * S::kGroupRows + static_cast<int>(threadIdx.x % 128 / 32) * 16 + lane_ / 4;
  }

  __device__ void run() {
    for (index_ = static_cast<int>(blockIdx.x); index_ < a.jobs; index_ += static_cast<int>(gridDim.x)) {
      locate();
      int r = job_.first;
      if (job_.tile * a.run[r].made >= valid_) continue;
      do {
        run_of(r);
      } while (++r < (a.together ? a.runs : 0));
    }
  }

 private:
  static constexpr int kPairs = S::kColumns / 4;
  static constexpr int kStride = S::stride(S::kRows);  // of the inner rows

  // f(m, h, row) for this thread's rows, `row` after its first: of columns 8 j it has sums_[m][4 j + 2 h] and the next.
  template <class F>
  __device__ static void each_row(const F& f) {
#pragma unroll
    for (int m = 0; m < S::kTiles; ++m) {
#pragma unroll
      for (int h = 0; h < 2; ++h) f(m, h, 64 * m + 8 * h);
    }
  }

  // Finds out again what the job is, for which there are no registers while convolutions run.
  __device__ void locate() {
    hold(index_);
    job_ = stage_job<S>(a, index_);
    valid_ = stage_valid(a, job_.item);
  }

  // Of a step in [items, steps, width].
  __device__ std::int64_t offset(int step) const {
    return (static_cast<std::int64_t>(job_.item) * a.steps + step) * S::kWidth;
  }

  __device__ int column(int j) const {
    return (S::kColumns < S::kWidth ? job_.column : 0) + 8 * j + lane_ % 4 * 2;
  }

  __device__ void run_of(int r) {
    hold(group_, lane_, row_);
    locate();
    const StageRun& run = a.run[r];
    const int first = job_.tile * run.made - run.lead;  // the step of row 0
    const StageConv* conv = a.conv + run.first;
    if (a.odd) group_sync(8, 256);  // the other consumer may still read what is overwritten
    load_rows(run, *conv, first);
    load_state(run, first);
    end_turn();
    std::uint32_t inside = 0;
    each_row([&](int m, int h, int row) {
      const int t = first + row_ + row;
      inside |= static_cast<std::uint32_t>(t >= 0 && t < valid_) << (2 * m + h);
    });
    for (int i = 0; i < run.convs; ++i, ++conv) {
      const bool from_input = i % 2 == 0, last = i + 1 == run.convs, ends_layer = (run.phase + i + 1) % a.depth == 0;
      const int stride = from_input ? S::stride(S::kRows + a.halo) : kStride;
      load_bias(conv->index, 0);
      multiply(*conv, shared_memory() + (from_input ? S::kInput : S::inner(a.halo)), stride, i == 0 ? 0 : conv->left);
      if (last) {
        locate();
        const int begin = job_.tile * run.made;
        if (run.out) return hand_on(run, conv->index, ends_layer, begin);
        return finish(run, conv->index, a.together && r > 0, a.together && r + 1 == a.runs, begin);
      }
      unsigned char* const to = shared_memory() + (from_input ? S::inner(a.halo) : S::kInput);
      const int step = from_input ? kStride : S::stride(S::kRows + a.halo);
      if (ends_layer) {
        store_rows<true>(conv->index, conv[1].act, to, step, inside);
      } else {
        store_rows<false>(conv->index, conv[1].act, to, step, inside);
      }
      end_turn();
    }
  }

  __device__ void end_turn() {
    fence_operands();
    group_sync(1 + group_, 128);
    group_arrive(3 + 2 * group_ + turn_ % 2, 256);
    ++turn_;
  }

  // Until the other consumer's turn before this convolution is over.
  __device__ void meet() { group_sync(3 + 2 * (1 - group_) + (turn_ - 1) % 2, 256); }

  // This consumer's share of act(input), whose row 0 is `conv.left` before that of the tile; zeros beside the signal.
  __device__ void load_rows(const StageRun& run, const StageConv& conv, int first) {
    const int middle = S::kGroupRows + conv.left, rows = S::kRows + (conv.kernel - 1) * conv.dilation;
    const int from = group_ == 0 ? 0 : middle, to = group_ == 0 ? middle : rows;
    const int stride = S::stride(S::kRows + a.halo);
    const BFloat16* x = a.x.data + static_cast<std::int64_t>(job_.item) * a.x.item;
    const bool plain = a.x.channel == 1 && a.x.step % 8 == 0 && reinterpret_cast<std::uintptr_t>(x) % 16 == 0;
    const BFloat16* in = run.in ? run.in + offset(0) : x;
    const std::int64_t step = run.in ? S::kWidth : a.x.step;
    const int whole = run.in ? S::kWidth : plain ? a.channels : 0;
    const int begin = from * S::kGroups + static_cast<int>(threadIdx.x % 128);
#pragma unroll 4
    for (int i = begin; i < to * S::kGroups; i += 128) {
      const int row = i / S::kGroups, c = i % S::kGroups * 8;
      const int t = first - conv.left + row;
      Eight<BFloat16> v;
#pragma unroll
      for (int j = 0; j < 8; ++j) v.v[j] = narrow<BFloat16>(0.0f);
      if (t >= 0 && t < valid_) {
        if (c + 8 <= whole) {
          v = *reinterpret_cast<const Eight<BFloat16>*>(in + t * step + c);
        } else {
#pragma unroll
          for (int j = 0; j < 8; ++j) {
            if (c + j < a.channels) v.v[j] = x[(c + j) * a.x.channel + t * a.x.step];
          }
        }
        if (!run.activated) {
#pragma unroll
          for (int j = 0; j < 8; j += 2) {
            const float2 made = StageAct<kAct>(conv.act, c + j)({widen(v.v[j]), widen(v.v[j + 1])});
            v.v[j] = narrow<BFloat16>(made.x);
            v.v[j + 1] = narrow<BFloat16>(made.y);
          }
        }
      }
      store_operand(shared_memory() + S::kInput + 16 * ((c / 8) * stride + row), v);
    }
  }

  // What the first layer adds to, at this thread's places.
  __device__ void load_state(const StageRun& run, int first) {
    const bool pairs = a.x.channel == 1 && a.x.step % 2 == 0 && a.x.item % 2 == 0 && a.channels == S::kWidth &&
                       reinterpret_cast<std::uintptr_t>(a.x.data) % 4 == 0;
    each_row([&](int m, int h, int row) {
      const int t = first + row_ + row;
      const bool here = t >= 0 && t < valid_;
      const BFloat16* at = run.state ? run.state + offset(t) : a.x.data + job_.item * a.x.item + t * a.x.step;
#pragma unroll
      for (int j = 0; j < S::kColumns / 8; ++j) {
        std::uint32_t v = 0;
        if (here && (run.state || pairs)) {
          v = *reinterpret_cast<const std::uint32_t*>(at + column(j));
        } else if (here) {
          v = pack_pair(column(j) < a.channels ? widen(at[column(j) * a.x.channel]) : 0.0f,
                        column(j) + 1 < a.channels ? widen(at[(column(j) + 1) * a.x.channel]) : 0.0f);
        }
        state_[m][2 * j + h] = v;
      }
    });
  }

  // The biases of a convolution from column 8 j on, two of 64 in each lane.
  __device__ void load_bias(int index, int j) {
    bias_ = *reinterpret_cast<const std::uint32_t*>(a.bias + index * S::kWidth + column(j + lane_ / 4 % (S::kColumns / 8)));
  }

  // Of columns 8 j and the next of this thread, for one j after the other: 64 are there before the products.
  __device__ float2 bias(int index, int j) {
    if (j > 0 && j % 8 == 0) load_bias(index, j);
    return unpack_pair(from_quad(bias_, j % 8));
  }

  // The convolution of rows at `source`, of which it reads from `ahead` before its own on.
  __device__ void multiply(const StageConv& conv, const unsigned char* source, int stride, int ahead) {
    const int group_row = group_ * S::kGroupRows - ahead;
    const unsigned rows = operand_part(shared_address(source) + static_cast<unsigned>(16 * group_row), 16 * stride);
    const unsigned weights = operand_part(shared_address(shared_memory()), 128);
    bool met = group_ == 1;
    if (met) meet();
    const bool begins = turn_ == 1;  // the second consumer lags from here on
    if (begins && group_ == 1) group_sync(7, 256);
    const int chunks = conv.kernel * S::kChunks, lag = min(S::kSlots / 2, chunks - 1);
    int chunk = 0;
#pragma unroll 1
    for (int tap = 0; tap < conv.kernel; ++tap) {
      if (!met && tap * conv.dilation > conv.left) {
        meet();
        met = true;
      }
#pragma unroll 1
      for (int c = 0; c < S::kChunks; ++c, ++chunk) {
        barrier_wait(ring_.full(ring_.slot), ring_.parity);
        products_fence();
#pragma unroll
        for (int k = 0; k < S::kSteps; ++k) {
          const unsigned b = weights + static_cast<unsigned>(ring_.slot * S::kChunkBytes + k * S::kStepBytes) / 16;
          const unsigned at = rows + static_cast<unsigned>(tap * conv.dilation + 2 * (c * S::kSteps + k) * stride);
#pragma unroll
          for (int m = 0; m < S::kTiles; ++m) product(sums_[m], operand(at + 64 * m, 128), operand(b, 256), chunk | k);
        }
        products_commit();
        products_wait<1>();
        if (chunk > 0) release();
        if (begins && group_ == 0 && chunk == lag) group_arrive(7, 256);
        ring_.next();
      }
    }
    products_wait<0>();
#pragma unroll
    for (int m = 0; m < S::kTiles; ++m) sums_ready(sums_[m]);
    release();
    if (!met) meet();
  }

  // Lets the producer have the slot before the ring's.
  __device__ void release() {
    if (lane_ == 0) barrier_arrive(ring_.empty(ring_.slot == 0 ? S::kSlots - 1 : ring_.slot - 1));
  }

  // act(sums + bias), with the state added where a layer ends, as the next convolution's input; zeros beside the signal.
  template <bool kEndsLayer>
  __device__ void store_rows(int index, const Act& act, unsigned char* to, int stride, std::uint32_t inside) {
    unsigned char* const at = to + 16 * row_ + lane_ % 4 * 4;
    const Act mine = act_from<kAct>(act, column(0));
#pragma unroll
    for (int j = 0; j < S::kColumns / 8; ++j) {
      const float2 b = bias(index, j);
      const StageAct<kAct> activate(mine, 8 * j);
      each_row([&](int m, int h, int row) {
        float2 v{sums_[m][4 * j + 2 * h] + b.x, sums_[m][4 * j + 2 * h + 1] + b.y};
        if constexpr (kEndsLayer) {
          const float2 before = unpack_pair(state_[m][2 * j + h]);
          state_[m][2 * j + h] = pack_pair(v.x + before.x, v.y + before.y);
          v = unpack_pair(state_[m][2 * j + h]);
        }
        v = activate(v);
        const std::uint32_t pair = pack_pair(v.x, v.y);
        store_operand(at + 16 * (j * stride + row), (inside >> (2 * m + h) & 1) != 0 ? pair : 0u);
      });
    }
  }

  // sums + bias, with the state added where a layer ends.
  __device__ float2 result(int m, int h, int j, float2 b, bool ends_layer) const {
    const float2 v{sums_[m][4 * j + 2 * h] + b.x, sums_[m][4 * j + 2 * h + 1] + b.y};
    if (!ends_layer) return v;
    const float2 before = unpack_pair(state_[m][2 * j + h]);
    return {v.x + before.x, v.y + before.y};
  }

  // The run's result for the launches after it.
  __device__ void hand_on(const StageRun& run, int index, bool ends_layer, int begin) {
    const int rows = min(begin + run.made, valid_) - begin, first = row_ - run.lead;  // after `begin`
    BFloat16* const to = run.out + offset(begin + first) + column(0);
    const Act mine = act_from<kAct>(run.out_act, column(0));
#pragma unroll
    for (int j = 0; j < S::kColumns / 8; ++j) {
      const float2 b = bias(index, j);
      const StageAct<kAct> activate(mine, 8 * j);
      each_row([&](int m, int h, int row) {
        float2 v = result(m, h, j, b, ends_layer);
        if (!ends_layer) v = activate(v);
        if (static_cast<unsigned>(first + row) >= static_cast<unsigned>(rows)) return;
        *reinterpret_cast<std::uint32_t*>(to + row * S::kWidth + 8 * j) = pack_pair(v.x, v.y);
      });
    }
  }

  // The block's result into a sum, or, last, the scaled sum into y.
  __device__ void finish(const StageRun& run, int index, bool adds, bool ends, int begin) {
    const int rows = min(begin + run.made, valid_) - begin, first = row_ - run.lead;
    float* const sums = column(0) + (a.together ? a.sums + (blockIdx.x * S::kRows + row_) * S::kWidth
                                                : run.partial + offset(begin + first));
#pragma unroll
    for (int j = 0; j < S::kColumns / 8; ++j) {
      const float2 b = bias(index, j);
      each_row([&](int m, int h, int row) {
        float2 v = result(m, h, j, b, true);
        if (static_cast<unsigned>(first + row) >= static_cast<unsigned>(rows)) return;
        float2* const at = reinterpret_cast<float2*>(sums + row * S::kWidth + 8 * j);
        if (adds) v = {at->x + v.x, at->y + v.y};
        if (ends) {
          store_output(begin + first + row, column(j), {v.x * a.scale, v.y * a.scale});
        } else {
          *at = v;
        }
      });
    }
  }

  // y is [items, steps, channels].
  __device__ void store_output(int step, int channel, float2 v) const {
    BFloat16* const at = a.y + (static_cast<std::int64_t>(job_.item) * a.steps + step) * a.channels + channel;
    if (channel + 1 < a.channels && a.channels % 2 == 0) {
      *reinterpret_cast<std::uint32_t*>(at) = pack_pair(v.x, v.y);
      return;
    }
    if (channel < a.channels) at[0] = narrow<BFloat16>(v.x);
    if (channel + 1 < a.channels) at[1] = narrow<BFloat16>(v.y);
  }

  const StageArgs& a;
  StageRing<S> ring_;
  int group_, lane_, row_;
  StageJob job_{};
  int index_ = 0, valid_ = 0;
  int turn_ = 0;
  std::uint32_t bias_ = 0;
  std::uint32_t state_[S::kTiles][kPairs];
  float sums_[S::kTiles][S::kColumns / 2];
};

#endif

// The mean of results of runs apart, [blocks, items, steps, width], and zeros beside the signal; these alone without blocks.
template <class T>
struct StageMeanArgs {
  const float* partial;
  T* y;
  const std::int64_t* lengths;
  std::int64_t size;  // of a block
  std::int64_t steps;
  int width;
  int channels;
  int blocks;
  float scale;
};

template <class T>
__global__ void stage_mean_kernel(const __grid_constant__ StageMeanArgs<T> a) {
  struct alignas(16) Four {
    float v[4];
  };
  const std::int64_t thread = thread_index(), item = blockIdx.y, quads = a.width / 4, t = thread / quads;
  const int c = static_cast<int>(thread % quads) * 4;
  if (t >= a.steps || c >= a.channels) return;
  const bool valid = !a.lengths || t < a.lengths[item];
  if (valid && a.blocks == 0) return;
  Four sum{};
  for (int b = 0; valid && b < a.blocks; ++b) {
    const auto one = *reinterpret_cast<const Four*>(a.partial + b * a.size + (item * a.steps + t) * a.width + c);
#pragma unroll
    for (int i = 0; i < 4; ++i) sum.v[i] = b == 0 ? one.v[i] : sum.v[i] + one.v[i];
  }
  T* const y = a.y + (item * a.steps + t) * a.channels + c;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (c + i < a.channels) y[i] = narrow<T>(sum.v[i] * a.scale);
  }
}

template <class S, ActKind kAct>
__global__ void __launch_bounds__(kStageThreads, 1) stage_kernel([[maybe_unused]] const __grid_constant__ StageArgs a) {
#if FASTVOC_HOPPER
  const StageRing<S> ring;
  if (threadIdx.x == 0) {
    for (int i = 0; i < S::kSlots; ++i) {
      barrier_init(ring.full(i), 1);
      barrier_init(ring.empty(i), 8);  // warps
    }
    barriers_ready();
  }
  __syncthreads();
  if (threadIdx.x < 128) {
    fewer_registers<24>();
    if (threadIdx.x == 0) stage_produce<S>(a);
  } else {
    more_registers<240>();
    StageConsumer<S, kAct>(a, static_cast<int>(threadIdx.x / 128) - 1).run();
  }
#endif
}

}  // namespace fastvoc::cuda
