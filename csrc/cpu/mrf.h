// mrf: all residual blocks of a stage and their mean, strip by strip. Layers keep their tails between strips, so nothing but
// the ends of a task's range is computed twice.
#pragma once

#include "depthwise.h"
#include "mrf_stream_args.h"
#include "strip.h"
#include "tile_narrow.h"
#include "toom_cook.h"

namespace fastvoc::FASTVOC_ISA {

template <class Element>
Element* elements_in(float* memory) {
  return reinterpret_cast<Element*>(memory);
}

// The input of a stage on its way along the time axis: activated as it is multiplied, and as it is.
template <class Element>
struct MrfInput {
  Strip<Element> act;
  Strip<float> raw;

  // From step `first` on, which may be negative: padding.
  void begin(Element* act_rows, float* raw_rows, int width, std::int64_t first, Element zero) {
    const std::int64_t made = std::max<std::int64_t>(0, first);
    act = {act_rows, width, first, made};
    raw = {raw_rows, width, made, made};
    act.pad_left(false, zero);
  }
};

// A residual block on its way along the time axis: its residual in floats, the inputs of its convolutions as they are
// multiplied.
template <class Element>
class BlockRun {
 public:
  // Output steps from `begin` on; `memory` is what block_floats() counts, `scratch` what mrf_scratch() counts. Blocks of
  // outputs begin at multiples of their length where `anchored`, else where they are first needed. The caller begins and cuts
  // an input that is `shared`.
  void start(const MrfArgs& args, const Filter<Element>* filters, int block, const AnySource& source,
             std::int64_t begin, std::int64_t strip, float* memory, float* scratch, bool anchored,
             MrfInput<Element>* shared = nullptr) {
    take(args, filters, block, source, scratch, anchored, shared);
    std::int64_t wanted = begin;
    for (int l = count_ - 1; l >= 0; --l) {
      const int multiple = anchored ? convs_[l].block() : 1;
      done_[l] = std::max<std::int64_t>(0, wanted) / multiple * multiple;
      wanted = done_[l] - convs_[l].left;
    }
    const int width = args.width(), slack = args.slack(block);
    std::int64_t made = std::max<std::int64_t>(0, wanted);  // first step that the layer before makes
    for (int l = 0; l < count_; ++l) {
      const MrfConv& conv = convs_[l];
      if (l == 0 && shared) {
        made = done_[l];
        continue;
      }
      input(l) = {elements_in<Element>(memory), width, std::min(done_[l] - conv.left, made), made};
      memory += mrf_input_steps(conv, strip, slack) * width;
      if (l % args.depth == 0) {
        residual(l / args.depth) = {memory, width, made, made};
        memory += mrf_residual_steps(convs_ + l, args.depth, strip, slack) * width;
      }
      if (!args.reflect) input(l).pad_left(false, zero_of<Element>(conv.act));
      made = done_[l];
    }
  }

  // Goes on where a stream of `have` input steps rested. Blocks of outputs begin where each layer stands. `memory` is what
  // mrf_stream_floats() counts, `scratch` as above.
  void resume(const MrfArgs& args, const Filter<Element>* filters, int block, const AnySource& source,
              std::int64_t have, std::int64_t strip, float* memory, float* scratch, const float* state) {
    take(args, filters, block, source, scratch, false, nullptr);
    const int width = args.width(), slack = args.slack(block);
    const std::int64_t wait = args.ahead() - args.ahead(block);
    std::int64_t end = have;
    for (int l = 0; l < count_; ++l) {
      const MrfConv& conv = convs_[l];
      done_[l] = mrf_done(args, conv, have);
      input(l) = {elements_in<Element>(memory), width, done_[l] - conv.left, end};
      memory += (mrf_input_steps(conv, strip, slack) + (l ? 0 : wait)) * width;
      state += wake(input(l), state, mrf_kept_input(args, block, l));
      if (!args.reflect) input(l).pad_left(false, zero_of<Element>(conv.act));
      if (l % args.depth == 0) {
        Strip<float>& kept = residual(l / args.depth);
        kept = {memory, width, mrf_done(args, convs_[l + args.depth - 1], have), end};
        memory += (mrf_residual_steps(convs_ + l, args.depth, strip, slack) + (l ? 0 : wait)) * width;
        state += wake(kept, state, mrf_kept_residual(args, block, l));
      }
      end = done_[l];
    }
  }

  // Puts what is kept into `state`, for resume().
  void rest(float* state) const {
    for (int l = 0; l < count_; ++l) {
      state += sleep(input(l), state, mrf_kept_input(*args_, block_, l));
      if (l % args_->depth == 0) state += sleep(residual(l / args_->depth), state, mrf_kept_residual(*args_, block_, l));
    }
  }

  // Loads the input steps up to `to`.
  void feed(std::int64_t to) {
    Strip<Element>& in = input(0);
    Strip<float>& raw = residual(0);
    if (to <= in.end) return;
    // The residual starts later than the input by the padding of the layers between.
    if (in.width < kPanel) {
      load_half_rows(*source_, in.end, to, raw.at(in.end), in.at(in.end), convs_[0].act);
    } else {
      load_rows(*source_, in.end, to, raw.at(in.end), in.at(in.end), convs_[0].act);
    }
    in.end = raw.end = to;
  }

  // The first steps of the stage's input, activated and as it is, that are still to be read.
  std::int64_t reads() const { return done_[0] - convs_[0].left; }
  std::int64_t adds() const { return done_[args_->depth - 1]; }

  // Computes every layer as far as output step `limit` needs. The last layer adds to `sum` where given and writes rows from
  // its first new step on to `result`, floats or what a stage gives, times `scale`; a limit at or before the beginning only
  // warms up.
  template <class Result>
  void advance(std::int64_t limit, const float* sum, Result* result, float scale) {
    const std::int64_t steps = source_->steps;
    std::int64_t to[kMaxConvs];
    for (int l = count_ - 1; l >= 0; --l) {
      to[l] = std::min(steps, limit);
      limit += anchored_ ? convs_[l].beyond() : convs_[l].right;
      if (anchored_ && l > 0) limit = whole_blocks(limit, convs_[l - 1].block());
    }
    feed(std::min(steps, limit));
    for (int l = 0; l < count_; ++l) {
      if (to[l] > done_[l]) run(l, to[l], sum, result, scale);
    }
  }

 private:
  // The first multiple of `block` from a step on, which may be negative.
  static std::int64_t whole_blocks(std::int64_t step, int block) {
    return (step > 0 ? ceil_div(step, block) : -(-step / block)) * block;
  }

  void take(const MrfArgs& args, const Filter<Element>* filters, int block, const AnySource& source,
            float* scratch, bool anchored, MrfInput<Element>* shared) {
    shared_ = shared;
    args_ = &args;
    source_ = &source;
    block_ = block;
    scratch_ = scratch;
    anchored_ = anchored;
    convs_ = args.convs + args.block_begin[block];
    filters_ = filters + args.block_begin[block];
    count_ = args.block_begin[block + 1] - args.block_begin[block];
  }

  Strip<Element>& input(int l) { return l == 0 && shared_ ? shared_->act : input_[l]; }
  const Strip<Element>& input(int l) const { return l == 0 && shared_ ? shared_->act : input_[l]; }
  Strip<float>& residual(int layer) { return layer == 0 && shared_ ? shared_->raw : residual_[layer]; }
  const Strip<float>& residual(int layer) const { return layer == 0 && shared_ ? shared_->raw : residual_[layer]; }

  // A state holds every strip as floats, which all elements fit into.
  template <class Kept>
  static std::int64_t wake(const Strip<Kept>& strip, const float* state, std::int64_t steps) {
    widen_back(state, strip.data, (strip.end - strip.first) * strip.width);
    return steps * strip.width;
  }

  template <class Kept>
  static std::int64_t sleep(const Strip<Kept>& strip, float* state, std::int64_t steps) {
    const std::int64_t held = (strip.end - strip.first) * strip.width, all = steps * strip.width;
    widen_row(strip.data, state, held);
    std::fill(state + held, state + all, 0.0f);
    return all;
  }

  // Pads an input that has reached the end of the signal; tiles read zeros beyond the padding.
  void pad_right(Strip<Element>& in, const MrfConv& conv) const {
    const std::int64_t steps = source_->steps;
    const Element zero = zero_of<Element>(conv.act);
    in.pad_right(steps + conv.right, steps, args_->reflect, zero);
    in.pad_right(whole_blocks(steps, conv.block()) + conv.beyond(), steps, false, zero);
  }

  template <class Result>
  void run(int l, std::int64_t to, const float* sum, Result* result, float scale) {
    const MrfConv& conv = convs_[l];
    const int width = args_->width();
    Strip<Element>& in = input(l);
    if (args_->reflect && in.first < 0) in.pad_left(true);
    if (in.end >= source_->steps) pad_right(in, conv);
    const std::int64_t from = done_[l];
    TileOutputOf<Element> out{.raw_row = width, .act_row = width, .residual_row = width, .sum_row = width};
    const int layer = l / args_->depth;
    const bool adds = l % args_->depth == args_->depth - 1;
    if (adds) out.residual = residual(layer).at(from);
    if (l + 1 == count_) {
      out.sum = sum;
      out.scale = scale;
      if constexpr (std::is_same_v<Result, float>) {
        out.raw = result;
      } else {
        static constexpr Act none{};
        out.act = result;
        out.activation = &none;
      }
    } else {
      out.act = input_[l + 1].at(from);
      out.activation = &convs_[l + 1].act;
      input_[l + 1].end = to;
      if (adds) {
        out.raw = residual_[layer + 1].at(from);
        residual_[layer + 1].end = to;
      }
    }
    const Element* rows = in.at(from - conv.left);
    if (conv.depthwise()) {
      if constexpr (!std::is_same_v<Element, std::uint8_t>) {
        share_panels(args_->team, width / kPanel, [&](int first, int last, int) {
          depthwise_rows(rows, width, conv.shape.kernel, conv.shape.dilation, filters_[l], *out.activation, out.act,
                         to - from, first, last);
        });
      }
    } else if (conv.direct()) {
      const std::ptrdiff_t tap = static_cast<std::ptrdiff_t>(conv.shape.dilation) * width;
      const auto tile = tile_input(rows, width, tap, filters_[l], conv.shape.kernel, args_->channels);
      if (width < kPanel) {
        narrow_rows<true>(tile, out, conv.shape.dilation, to - from);
      } else if (width == kPanel && shares_rows(conv, adds)) {
        narrow_rows<false>(tile, out, conv.shape.dilation, to - from);
      } else {
        share_panels(args_->team, width / kPanel, [&](int first, int last, int) {
          conv_rows(tile.from(first), out.from(first), to - from, last - first);
        });
      }
    } else if constexpr (!std::is_same_v<Element, std::uint8_t>) {
      // The last tile of a stream reads zeros where the input is not there yet; outputs that depend on it are not kept.
      const std::int64_t read = from + whole_blocks(to - from, conv.block()) + conv.beyond();
      if (!anchored_ && read > in.end) {
        std::memset(in.at(in.end), 0, static_cast<std::size_t>((read - in.end) * width) * sizeof(Element));
      }
      toom_cook_rows(conv.shape, filters_[l], args_->channels, rows, width, out, to - from, scratch_, args_->team);
    }
    done_[l] = to;
    if (l || !shared_) in.drop_before(to - conv.left);
    if (adds && (layer || !shared_)) residual(layer).drop_before(to);
  }

  // Whether two steps of one panel gain by sharing what they read: not where their results, a dilation apart, are many beside
  // their products.
  static bool shares_rows(const MrfConv& conv, bool adds) {
    return kShared > 1 && (conv.shape.dilation == 1 || (conv.shape.kernel >= 7 && !adds));
  }

  const MrfArgs* args_;
  MrfInput<Element>* shared_ = nullptr;
  const AnySource* source_;
  const MrfConv* convs_;
  const Filter<Element>* filters_;
  float* scratch_;
  bool anchored_;
  int count_;
  int block_;
  Strip<Element> input_[kMaxConvs];
  Strip<float> residual_[kMaxConvs];
  std::int64_t done_[kMaxConvs];
};

template <class Element>
void mrf(const MrfArgs& args, const Filter<Element>* filters, const AnySource& source,
         const SinkOf<Outer<Element>>& sink, std::int64_t begin, std::int64_t end, float* workspace) {
  const int width = args.width();
  const std::int64_t strip = mrf_strip(args, end - begin);
  float* mean = workspace;
  float* scratch = mean + strip * width;
  float* memory = scratch + mrf_scratch(args, strip);
  MrfInput<Element> shared;
  const bool shares = args.shares_input();
  float* const act = memory;
  float* const raw = act + mrf_shared_steps(args, strip) * width;
  if (shares) memory = raw + mrf_shared_steps(args, strip) * width;
  BlockRun<Element> runs[kMaxBlocks];
  std::int64_t warmup = 0;
  std::int64_t reads = INT64_MAX, adds = INT64_MAX;
  for (int b = 0; b < args.blocks; ++b) {
    runs[b].start(args, filters, b, source, begin, strip, memory, scratch, true, shares ? &shared : nullptr);
    memory += block_floats(args, b, strip, shares);
    warmup = std::max(warmup, args.lead(b) / strip);
    reads = std::min(reads, runs[b].reads());
  }
  if (shares) shared.begin(elements_in<Element>(act), raw, width, reads, zero_of<Element>(args.convs[0].act));
  const float scale = 1.0f / static_cast<float>(args.blocks);
  const bool dense = sink.channels == width;  // rows without padding take results as they come
  for (std::int64_t m = -warmup; begin + (m - 1) * strip < end; ++m) {
    const std::int64_t limit = std::min(end, begin + m * strip);
    const auto step = [&](int b) {
      if (m < -(args.lead(b) / strip)) return;
      const float* const sum = b ? mean : nullptr;
      if (b + 1 < args.blocks) {
        runs[b].advance(limit, sum, mean, 1.0f);
      } else if (dense) {
        runs[b].advance(limit, sum, sink.data + (begin + std::max<std::int64_t>(m - 1, 0) * strip) * width, scale);
      } else {
        runs[b].advance(limit, sum, mean, scale);
      }
    };
    reads = adds = INT64_MAX;
    for (int b = 0; b < args.blocks; ++b) {
      step(b);
      reads = std::min(reads, runs[b].reads());
      adds = std::min(adds, runs[b].adds());
    }
    if (shares) {
      shared.act.drop_before(reads);
      shared.raw.drop_before(adds);
    }
    if (m > 0 && !dense) store_rows(sink, begin + (m - 1) * strip, mean, limit - (begin + (m - 1) * strip), width);
  }
}

// The same for one block: its output steps [0, end) as rows of padded width.
template <class Element>
void mrf_block(const MrfArgs& args, const Filter<Element>* filters, int block, const AnySource& source, float* result,
               std::int64_t end, float* workspace) {
  const std::int64_t strip = mrf_strip(args, end);
  BlockRun<Element> run;
  run.start(args, filters, block, source, 0, strip, workspace + mrf_scratch(args, strip), workspace, true);
  for (std::int64_t m = -(args.lead(block) / strip); (m - 1) * strip < end; ++m) {
    const std::int64_t made = std::max<std::int64_t>(m - 1, 0) * strip;
    run.advance(std::min(end, m * strip), nullptr, result + made * args.width(), 1.0f);
  }
}

}  // namespace fastvoc::FASTVOC_ISA
