// mrf on a signal in chunks: between chunks the strips of a block rest in the caller's state.
#pragma once

#include "mrf.h"
#include "mrf_stream_args.h"

namespace fastvoc::FASTVOC_ISA {

// The output steps [begin, stop) of those that this chunk completes for a block. What comes first goes on from the state,
// what comes later starts anew from the chunk's input; the last steps leave the state.
template <class Element>
void mrf_stream_range(const MrfArgs& args, const Filter<Element>* filters, int block,
                      const MrfChunk<Outer<Element>>& chunk, std::int64_t begin, std::int64_t stop, float* workspace) {
  const std::int64_t strip = mrf_stream_strip(args, chunk.steps, chunk.last);
  AnySource source = chunk.source;
  source.steps = chunk.last ? chunk.end() : INT64_MAX / 2;
  BlockRun<Element> run;
  float* memory = workspace + mrf_scratch(args, strip);
  std::int64_t limit = chunk.have - args.ahead();
  if (begin == chunk.first(args)) {
    run.resume(args, filters, block, source, chunk.have, strip, memory, workspace, chunk.before);
  } else {
    run.start(args, filters, block, source, begin, strip, memory, workspace, false);
    limit = begin - (args.lead(block) / strip + 1) * strip;
  }
  float* result = chunk.result + (begin - chunk.first(args)) * args.width();
  while (limit < stop) {
    const std::int64_t made = std::max(limit, begin);
    limit = std::min(stop, limit + strip);
    run.advance(limit, nullptr, result, 1.0f);
    result += std::max<std::int64_t>(limit - made, 0) * args.width();
  }
  if (chunk.last || stop < chunk.target(args)) return;
  run.feed(chunk.end());
  run.rest(chunk.after);
}

// The output steps of one block that this chunk completes, in ranges of their own where `mrf_stream_ranges` says so; else a
// team shares out the channels of every convolution.
template <class Element>
void mrf_stream(const MrfArgs& args, const Filter<Element>* filters, int block, const MrfChunk<Outer<Element>>& chunk,
                float* workspace) {
  const std::int64_t first = chunk.first(args), count = chunk.target(args) - first;
  const std::int64_t ranges = mrf_stream_ranges(args, block, count);
  if (ranges == 1) return mrf_stream_range(args, filters, block, chunk, first, first + count, workspace);
  MrfArgs alone = args;
  alone.team = nullptr;
  const std::int64_t floats = mrf_stream_floats(alone, block, chunk.steps, chunk.last);
  share(args.team, ranges, [&](std::int64_t from, std::int64_t to, int part) {
    for (std::int64_t r = from; r < to; ++r) {
      mrf_stream_range(alone, filters, block, chunk, first + count * r / ranges, first + count * (r + 1) / ranges,
                       workspace + part * floats);
    }
  });
}

// The mean of the blocks' results for the output steps [begin, end) of one item: `results` holds `steps` rows a block.
template <class Given>
void mrf_mean(const MrfArgs& args, const float* results, std::int64_t steps, const SinkOf<Given>& sink, std::int64_t begin,
              std::int64_t end) {
  const int width = args.width();
  const float scale = 1.0f / static_cast<float>(args.blocks);
  // Rows of the sink without padding are one long row.
  const bool dense = args.channels == width;
  const std::int64_t rows = dense ? 1 : end - begin, row = dense ? (end - begin) * width : args.channels;
  for (std::int64_t t = begin; t < begin + rows; ++t) {
    Given* out = sink.data + t * sink.channels;
    for (std::int64_t c = 0; c < row; c += FASTVOC_WIDTH) {
      const float* at = results + t * width + c;
      const std::int64_t count = std::min<std::int64_t>(FASTVOC_WIDTH, row - c);
      if (count == FASTVOC_WIDTH) {
        Vec y = load(at);
        for (int b = 1; b < args.blocks; ++b) y = load(at + b * steps * width) + y;
        if (args.blocks > 1) y *= scale;
        store(out + c, y);
      } else {
        float part[FASTVOC_WIDTH];
        for (std::int64_t i = 0; i < count; ++i) {
          float y = at[i];
          for (int b = 1; b < args.blocks; ++b) y = at[b * steps * width + i] + y;
          part[i] = args.blocks > 1 ? y * scale : y;
        }
        narrow_row(part, out + c, count);
      }
    }
  }
}

}  // namespace fastvoc::FASTVOC_ISA
