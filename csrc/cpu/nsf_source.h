// nsf_source: sines of integer phases and noise by position, merged. A vector of samples begins at a whole number of vectors
// from the middle or the begin of its frame, so that neither ranges nor chunks change a bit.
#pragma once

#include "noise.h"
#include "nsf_source_args.h"

namespace fastvoc::FASTVOC_ISA {

// The sines over a stretch of samples: at its k-th their phases are base + k * step.
struct NsfRun {
  std::int64_t begin;  // sample of the item
  std::int64_t end;
  std::uint64_t base[kMaxSines];
  std::uint64_t step[kMaxSines];
  float f0;
  bool finite;
};

// The noise of rows h.. of one group of four, of samples from `sample` on, into noise[h].
inline void draw(const NsfSourceArgs& args, const NsfItem& item, std::int64_t sample, Vec* noise) {
  const std::uint64_t at = item.position + static_cast<std::uint64_t>(sample);
  for (int h = 0; h < args.rows; h += 4) {
    WordVec words[4];
    random_words(at, static_cast<std::uint32_t>(h / 4), item.seed, words);
    if (args.noise == NsfNoise::kUniform) {
      for (int i = 0; i < 4; ++i) noise[h + i] = uniform(words[i]);
    } else {
      normal_pair(words[0], words[1], noise[h], noise[h + 1]);
      if (h + 2 < args.rows) normal_pair(words[2], words[3], noise[h + 2], noise[h + 3]);
    }
  }
}

inline Vec load_noise(const NsfItem& item, int row, std::int64_t sample, std::int64_t count) {
  const float* from = item.noise + row * item.noise_row + sample * item.noise_step;
  if (item.noise_step == 1 && count == FASTVOC_WIDTH) return load(from);
  Vec v{};
  for (int i = 0; i < count; ++i) v[i] = from[i * item.noise_step];
  return v;
}

// The weighted sines of a vector of samples, the k-th of a run and on.
inline Vec sines(const NsfSourceArgs& args, const NsfRun& run, std::uint64_t k) {
  Vec sum{};
  for (int h = 0; h < args.rows; ++h) {
    const auto phase = static_cast<std::uint32_t>((run.base[h] + run.step[h] * k) >> 32);
    const auto step = static_cast<std::uint32_t>((run.step[h] + (1u << 31)) >> 32);
    sum += sin_cycles(lane_numbers() * step + phase) * (args.weight[h] * args.amp);
  }
  return sum;
}

// Writes the samples of a run that lie in [begin, end).
inline void make_run(const NsfSourceArgs& args, const NsfItem& item, const NsfRun& run, const Sink& sink, std::int64_t begin,
                     std::int64_t end) {
  constexpr int width = FASTVOC_WIDTH;
  const std::int64_t from = std::max(begin, run.begin), to = std::min(end, run.end);
  if (from >= to) return;
  const bool voiced = run.f0 > args.threshold, hold = args.kind == NsfKind::kFrameNearest;
  const float noise_scale = voiced ? args.noise_std : args.amp / 3;
  const Vec bias = broadcast(run.finite ? args.bias : __builtin_nanf(""));
  const Vec held = voiced && hold ? bias + sines(args, run, 0) : bias;
  Vec noise[kMaxSines + 4];
  for (std::int64_t t = run.begin + (from - run.begin) / width * width; t < to; t += width) {
    const std::int64_t count = std::min<std::int64_t>(width, run.end - t);
    Vec sum = voiced && !hold ? bias + sines(args, run, static_cast<std::uint64_t>(t - run.begin)) : held;
    if (args.noise == NsfNoise::kGiven) {
      for (int h = 0; h < args.rows; ++h) sum += load_noise(item, h, t, count) * (args.weight[h] * noise_scale);
    } else if (args.noise != NsfNoise::kNone) {
      draw(args, item, t, noise);
      for (int h = 0; h < args.rows; ++h) sum += noise[h] * (args.weight[h] * noise_scale);
    }
    float y[width];
    store(y, tanh(sum));
    const std::int64_t low = std::max(t, from), high = std::min(t + count, to);
    std::memcpy(sink.data + low, y + (low - t), static_cast<std::size_t>(high - low) * sizeof(float));
  }
}

inline void nsf_source(const NsfSourceArgs& args, const NsfItem& item, const Sink& sink, std::int64_t begin,
                       std::int64_t end) {
  const std::int64_t hop = args.hop, frames = item.f0.steps;
  std::uint64_t total = 0;  // the fundamental's phase before a frame, from the first sample on
  std::int64_t frame = 0;
  for (; frame < begin / hop; ++frame) total += advance(args, item.f0, frame) * static_cast<std::uint64_t>(hop);
  const auto finite = [&](std::int64_t f) { return std::isfinite(item.f0.data[f * item.f0.step]); };
  for (; frame * hop < end; ++frame) {
    NsfRun run;
    run.begin = frame * hop;
    run.end = run.begin + hop;
    run.f0 = item.f0.data[frame * item.f0.step];
    run.finite = finite(frame);
    const std::uint64_t step = advance(args, item.f0, frame);
    const std::uint64_t after = total + step * static_cast<std::uint64_t>(hop);
    if (args.kind == NsfKind::kFrameLinear) {
      // Up to its middle a frame comes from the phase before it, from there on it goes to that after the next.
      const bool start = frame == 0 && item.position == 0, last = frame + 1 == frames;
      const std::uint64_t next = last ? 0 : advance(args, item.f0, frame + 1);
      const std::int64_t middle = run.begin + hop / 2;
      NsfRun late = run;
      run.end = late.begin = middle;
      late.finite = run.finite && (last || finite(frame + 1));
      for (int h = 0; h < args.rows; ++h) {
        const auto number = static_cast<std::uint64_t>(h + 1);
        // Advances count as 0..1 cycles here, as published; halved, as the weights of samples are odd multiples of 1 / 2 hop.
        const std::uint64_t into = start ? 0 : number * step >> 1, onward = number * next >> 1;
        run.base[h] = item.phases[h] + number * (start ? after : total) + into * static_cast<std::uint64_t>(hop + 1);
        run.step[h] = 2 * into;
        late.base[h] = item.phases[h] + number * after + onward * static_cast<std::uint64_t>(hop % 2 ? 0 : 1);
        late.step[h] = 2 * onward;
      }
      make_run(args, item, run, sink, begin, end);
      make_run(args, item, late, sink, begin, end);
    } else {
      const bool hold = args.kind == NsfKind::kFrameNearest;
      for (int h = 0; h < args.rows; ++h) {
        const auto number = static_cast<std::uint64_t>(h + 1);
        run.base[h] = item.phases[h] + number * (hold ? after : total + step);
        run.step[h] = hold ? 0 : number * step;
      }
      make_run(args, item, run, sink, begin, end);
    }
    total = after;
  }
}

}  // namespace fastvoc::FASTVOC_ISA
