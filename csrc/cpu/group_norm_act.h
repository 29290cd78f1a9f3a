// group_norm_act: the moments of an item block by block, then normalisation, addition and activation in one pass.
#pragma once

#include "group_norm_act_args.h"
#include "strip.h"

namespace fastvoc::FASTVOC_ISA {

struct Rows {
  const float* data;
  std::ptrdiff_t row;
};

// The steps [from, to) as rows of whole vectors: where they are if that will do, else copied to `space` with zeros beyond.
inline Rows rows_of(const Source& source, std::int64_t from, std::int64_t to, float* space) {
  if (source.channel == 1 && source.channels % FASTVOC_WIDTH == 0) return {source.data + from * source.step, source.step};
  load_rows(source, from, to, nullptr, space, Act{});
  return {space, padded(source.channels)};
}

inline double sum_lanes(const Vec (&sums)[4]) {
  double total = 0.0;
  for (const Vec& sum : sums) {
    for (int lane = 0; lane < FASTVOC_WIDTH; ++lane) total += static_cast<double>(sum[lane]);
  }
  return total;
}

// The moments of rows of whole vectors: the mean of plain sums, then the distances from it, whose own mean corrects it.
inline Moments moments_of(const float* rows, std::ptrdiff_t row, std::int64_t steps, int channels) {
  const double count = static_cast<double>(steps) * channels;
  const int columns = static_cast<int>(ceil_div(channels, FASTVOC_WIDTH)) * FASTVOC_WIDTH;
  Vec sums[4] = {};
  for (std::int64_t t = 0; t < steps; t += 4) {
    const int last = static_cast<int>(std::min<std::int64_t>(4, steps - t));
    for (int c = 0; c < columns; c += FASTVOC_WIDTH) {
      for (int r = 0; r < last; ++r) sums[r] += load(rows + (t + r) * row + c);
    }
  }
  const float mean = static_cast<float>(sum_lanes(sums) / count);
  float valid[FASTVOC_WIDTH];
  for (int lane = 0; lane < FASTVOC_WIDTH; ++lane) valid[lane] = columns - FASTVOC_WIDTH + lane < channels;
  const Vec mask = load(valid);
  Vec first[4] = {}, second[4] = {};
  for (std::int64_t t = 0; t < steps; t += 4) {
    const int last = static_cast<int>(std::min<std::int64_t>(4, steps - t));
    for (int c = 0; c < columns; c += FASTVOC_WIDTH) {
      for (int r = 0; r < last; ++r) {
        Vec d = load(rows + (t + r) * row + c) - mean;
        if (c + FASTVOC_WIDTH == columns) d *= mask;
        first[r] += d;
        second[r] += d * d;
      }
    }
  }
  const double off = sum_lanes(first) / count;
  return {count, mean + off, sum_lanes(second) - count * off * off};
}

// The moments of the steps [begin, end).
inline Moments moments(const GroupNormArgs& args, const Source& source, std::int64_t begin, std::int64_t end, float* workspace) {
  const Rows rows = rows_of(source, begin, end, workspace);
  return moments_of(rows.data, rows.row, end - begin, args.channels);
}

// weight / deviation of each channel, padded to whole panels.
inline void norm_scale(const GroupNormArgs& args, const Moments& item, double eps, float* scale) {
  const double deviation = norm_deviation(item, eps);
  for (int c = 0; c < padded(args.channels); ++c) {
    scale[c] = static_cast<float>(static_cast<double>(args.weight[c]) / deviation);
  }
}

template <ActKind kind>
void normalise_rows(const Act& act, const float* scale, const float* shift, double mean, const Rows& x, const Rows& added,
                    float* y, std::ptrdiff_t y_row, std::int64_t steps, int columns) {
  // The mean in two parts: one float of it would be too coarse beside a small deviation.
  const float high = static_cast<float>(mean), low = static_cast<float>(mean - static_cast<double>(high));
  const ActFunction<kind> f{act};
  for (std::int64_t t = 0; t < steps; ++t, y += y_row) {
    for (int c = 0; c < columns; c += FASTVOC_WIDTH) {
      Vec v = ((load(x.data + t * x.row + c) - high) - low) * load(scale + c) + load(shift + c);
      if (added.data) v += load(added.data + t * added.row + c);
      store(y + c, f(v, c));
    }
  }
}

// y = act((x - mean) * scale + bias + added) for rows of `columns` channels, whole vectors.
inline void normalise(const GroupNormArgs& args, const float* scale, double mean, const Rows& x, const Rows& added, float* y,
                      std::ptrdiff_t y_row, std::int64_t steps, int columns) {
  const auto run = [&](auto function) { function(args.act, scale, args.bias, mean, x, added, y, y_row, steps, columns); };
  switch (args.act.kind) {
    case ActKind::kLeaky:
      return run(&normalise_rows<ActKind::kLeaky>);
    case ActKind::kTanh:
      return run(&normalise_rows<ActKind::kTanh>);
    case ActKind::kElu:
      return run(&normalise_rows<ActKind::kElu>);
    case ActKind::kGelu:
      return run(&normalise_rows<ActKind::kGelu>);
    case ActKind::kSnake:
      return run(&normalise_rows<ActKind::kSnake>);
  }
}

// The op's steps [begin, end) from the moments of the whole item.
inline void group_norm_act(const GroupNormArgs& args, const Moments& item, double eps, const Source& source,
                           const Source* residual, const Sink& sink, std::int64_t begin, std::int64_t end,
                           float* workspace) {
  const int width = padded(args.channels);
  const std::int64_t strip = moment_steps(args) - 1;  // a row of the scratch memory holds the scale
  const bool direct = args.channels % FASTVOC_WIDTH == 0;
  float* scale = workspace;
  float* space = workspace + width;
  norm_scale(args, item, eps, scale);
  for (std::int64_t t = begin; t < end; t += strip) {
    const std::int64_t count = std::min(strip, end - t);
    const Rows x = rows_of(source, t, t + count, space);
    const Rows added = residual ? rows_of(*residual, t, t + count, space + strip * width) : Rows{nullptr, 0};
    float* y = direct ? sink.data + t * sink.channels : space + 2 * strip * width;
    const std::ptrdiff_t row = direct ? sink.channels : width;
    const int columns = static_cast<int>(ceil_div(args.channels, FASTVOC_WIDTH)) * FASTVOC_WIDTH;
    normalise(args, scale, item.mean, x, added, y, row, count, columns);
    if (!direct) store_rows(sink, t, y, count);
  }
}

}  // namespace fastvoc::FASTVOC_ISA
