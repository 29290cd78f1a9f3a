// mrf: all residual blocks of a stage and their mean, strip by strip. Layers keep their tails between strips, so nothing but
// the ends of a task's range is computed twice.
#pragma once

#include "mrf_stream_args.h"
#include "strip.h"
#include "tile.h"

namespace fastvoc::FASTVOC_ISA {

// A residual block on its way along the time axis.
class BlockRun {
 public:
  // Output steps from `begin` on; `memory` is what block_floats() counts.
  void start(const MrfArgs& args, int block, const Source& source, std::int64_t begin, std::int64_t strip, float* memory) {
    args_ = &args;
    source_ = &source;
    block_ = block;
    convs_ = args.convs + args.block_begin[block];
    count_ = args.block_begin[block + 1] - args.block_begin[block];
    const int width = padded(args.channels);
    for (int l = 0; l < count_; ++l) {
      const MrfConv& conv = convs_[l];
      done_[l] = std::max<std::int64_t>(0, begin - conv.back);
      const std::int64_t first = done_[l] - conv.left;
      const std::int64_t valid = std::max<std::int64_t>(0, first);
      input_[l] = Strip{memory, width, first, valid};
      memory += mrf_input_steps(conv, strip) * width;
      if (l % args.depth == 0) {
        const MrfConv& out = convs_[l + args.depth - 1];
        const std::int64_t kept = std::max<std::int64_t>(0, begin - out.back);
        residual_[l / args.depth] = Strip{memory, width, std::min(kept, valid), valid};
        memory += mrf_residual_steps(convs_ + l, args.depth, strip) * width;
      }
      if (!args.reflect) input_[l].pad_left(false);
    }
  }

  // Goes on where a stream of `have` input steps rested; `memory` is what mrf_stream_floats() counts.
  void resume(const MrfArgs& args, int block, const Source& source, std::int64_t have, std::int64_t strip, float* memory,
              const float* state) {
    args_ = &args;
    source_ = &source;
    block_ = block;
    convs_ = args.convs + args.block_begin[block];
    count_ = args.block_begin[block + 1] - args.block_begin[block];
    const int width = padded(args.channels);
    const std::int64_t wait = args.ahead() - args.ahead(block);
    std::int64_t end = have;
    for (int l = 0; l < count_; ++l) {
      const MrfConv& conv = convs_[l];
      done_[l] = mrf_done(args, conv, have);
      input_[l] = Strip{memory, width, done_[l] - conv.left, end};
      memory += (mrf_input_steps(conv, strip) + (l ? 0 : wait)) * width;
      state += wake(input_[l], state, mrf_kept_input(args, block, l));
      if (!args.reflect) input_[l].pad_left(false);
      if (l % args.depth == 0) {
        Strip& residual = residual_[l / args.depth];
        residual = Strip{memory, width, mrf_done(args, convs_[l + args.depth - 1], have), end};
        memory += (mrf_residual_steps(convs_ + l, args.depth, strip) + (l ? 0 : wait)) * width;
        state += wake(residual, state, mrf_kept_residual(args, block, l));
      }
      end = done_[l];
    }
  }

  // Puts what is kept into `state`, for resume().
  void rest(float* state) const {
    for (int l = 0; l < count_; ++l) {
      state += sleep(input_[l], state, mrf_kept_input(*args_, block_, l));
      if (l % args_->depth == 0) state += sleep(residual_[l / args_->depth], state, mrf_kept_residual(*args_, block_, l));
    }
  }

  // Loads the input steps up to `to`.
  void feed(std::int64_t to) {
    Strip& in = input_[0];
    Strip& raw = residual_[0];
    if (to <= in.end) return;
    // The residual starts later than the input by the padding of the layers between.
    load_rows(*source_, in.end, to, raw.at(in.end), in.at(in.end), convs_[0].act);
    in.end = raw.end = to;
  }

  // Computes every layer as far as output step `limit` needs. The last layer adds to `sum` where given and writes rows from
  // its first new step on to `result`, times `scale`; a limit at or before the beginning only warms up.
  void advance(std::int64_t limit, const float* sum, float* result, float scale) {
    const std::int64_t steps = source_->steps;
    const MrfConv& head = convs_[0];
    feed(std::min(steps, limit + head.right + head.ahead));
    for (int l = 0; l < count_; ++l) {
      const std::int64_t to = std::min(steps, limit + convs_[l].ahead);
      if (to > done_[l]) run(l, to, sum, result, scale);
    }
  }

 private:
  static std::int64_t wake(const Strip& strip, const float* state, std::int64_t steps) {
    std::memcpy(strip.data, state, static_cast<std::size_t>((strip.end - strip.first) * strip.width) * sizeof(float));
    return steps * strip.width;
  }

  static std::int64_t sleep(const Strip& strip, float* state, std::int64_t steps) {
    std::memcpy(state, strip.data, static_cast<std::size_t>((strip.end - strip.first) * strip.width) * sizeof(float));
    return steps * strip.width;
  }

  void run(int l, std::int64_t to, const float* sum, float* result, float scale) {
    const MrfConv& conv = convs_[l];
    const std::int64_t steps = source_->steps;
    const int width = padded(args_->channels);
    Strip& in = input_[l];
    if (args_->reflect && in.first < 0) in.pad_left(true);
    if (in.end == steps) in.pad_right(steps + conv.right, steps, args_->reflect);
    const std::int64_t from = done_[l];
    const TileInput tile{in.at(from - conv.left),
                         width,
                         static_cast<std::ptrdiff_t>(conv.dilation) * width,
                         conv.weight,
                         static_cast<std::ptrdiff_t>(conv.kernel) * args_->channels * kPanel,
                         conv.bias,
                         conv.kernel,
                         args_->channels};
    TileOutput out{nullptr, nullptr, nullptr, nullptr, width, width, width, width, nullptr, 0, 1.0f};
    const int layer = l / args_->depth;
    const bool adds = l % args_->depth == args_->depth - 1;
    if (adds) out.residual = residual_[layer].at(from);
    if (l + 1 == count_) {
      out.sum = sum;
      out.raw = result;
      out.scale = scale;
    } else {
      out.act = input_[l + 1].at(from);
      out.activation = &convs_[l + 1].act;
      input_[l + 1].end = to;
      if (adds) {
        out.raw = residual_[layer + 1].at(from);
        residual_[layer + 1].end = to;
      }
    }
    conv_rows(tile, out, to - from, width / kPanel);
    done_[l] = to;
    in.drop_before(to - conv.left);
    if (adds) residual_[layer].drop_before(to);
  }

  const MrfArgs* args_;
  const Source* source_;
  const MrfConv* convs_;
  int count_;
  int block_;
  Strip input_[kMaxConvs];
  Strip residual_[kMaxConvs];
  std::int64_t done_[kMaxConvs];
};

inline void mrf(const MrfArgs& args, const Source& source, const Sink& sink, std::int64_t begin, std::int64_t end,
                float* workspace) {
  const int width = padded(args.channels);
  const std::int64_t strip = strip_steps(width, end - begin);
  float* mean = workspace;
  float* memory = workspace + strip * width;
  BlockRun runs[kMaxBlocks];
  std::int64_t warmup = 0;
  for (int b = 0; b < args.blocks; ++b) {
    runs[b].start(args, b, source, begin, strip, memory);
    memory += block_floats(args, b, strip);
    warmup = std::max(warmup, args.around(b) / strip);
  }
  const float scale = 1.0f / static_cast<float>(args.blocks);
  for (std::int64_t m = -warmup; begin + (m - 1) * strip < end; ++m) {
    const std::int64_t limit = std::min(end, begin + m * strip);
    for (int b = 0; b < args.blocks; ++b) {
      if (m < -(args.around(b) / strip)) continue;
      const bool last = b + 1 == args.blocks;
      runs[b].advance(limit, b ? mean : nullptr, mean, last ? scale : 1.0f);
    }
    if (m > 0) store_rows(sink, begin + (m - 1) * strip, mean, limit - (begin + (m - 1) * strip));
  }
}

}  // namespace fastvoc::FASTVOC_ISA
