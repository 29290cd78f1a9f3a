// mrf on a signal in chunks: between chunks the strips of a block rest in the caller's state.
#pragma once

#include "mrf.h"
#include "mrf_stream_args.h"

namespace fastvoc::FASTVOC_ISA {

// The output steps of one block that this chunk completes.
template <class Element>
void mrf_stream(const MrfArgs& args, const Filter<Element>* filters, int block, const MrfChunk<Outer<Element>>& chunk,
                float* workspace) {
  const std::int64_t ahead = args.ahead(), end = chunk.have + chunk.steps;
  const std::int64_t strip = mrf_stream_strip(args, chunk.steps, chunk.last);
  SourceOf<Outer<Element>> source = chunk.source;
  source.steps = chunk.last ? end : INT64_MAX / 2;
  BlockRun<Element> run;
  float* memory = workspace + mrf_scratch(args, strip);
  run.resume(args, filters, block, source, chunk.have, strip, memory, workspace, chunk.before);
  float* result = chunk.result;
  const std::int64_t target = chunk.last ? end : end - ahead;
  for (std::int64_t limit = chunk.have - ahead; limit < target;) {
    const std::int64_t made = std::max<std::int64_t>(limit, 0);
    limit = std::min(target, limit + strip);
    run.advance(limit, nullptr, result, 1.0f);
    result += std::max<std::int64_t>(limit - made, 0) * padded(args.channels);
  }
  if (chunk.last) return;
  run.feed(end);
  run.rest(chunk.after);
}

// The mean of the blocks' results for the output steps [begin, end) of one item: `results` holds `steps` rows a block.
template <class Given>
void mrf_mean(const MrfArgs& args, const float* results, std::int64_t steps, const SinkOf<Given>& sink, std::int64_t begin,
              std::int64_t end) {
  const int width = padded(args.channels);
  const float scale = 1.0f / static_cast<float>(args.blocks);
  for (std::int64_t t = begin; t < end; ++t) {
    Given* out = sink.data + t * sink.channels;
    for (int c = 0; c < args.channels; c += FASTVOC_WIDTH) {
      Vec y = load(results + t * width + c);
      for (int b = 1; b < args.blocks; ++b) y = load(results + (b * steps + t) * width + c) + y;
      if (args.blocks > 1) y *= scale;
      const int count = std::min(FASTVOC_WIDTH, args.channels - c);
      if (count == FASTVOC_WIDTH) {
        store(out + c, y);
      } else {
        float part[FASTVOC_WIDTH];
        store(part, y);
        narrow_row(part, out + c, count);
      }
    }
  }
}

}  // namespace fastvoc::FASTVOC_ISA
