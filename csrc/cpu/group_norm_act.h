// group_norm_act: the moments of an item block by block, then normalisation, addition and activation in one pass.
#pragma once

#include "group_norm_act_args.h"
#include "strip.h"

namespace fastvoc::FASTVOC_ISA {

template <class Element>
struct Rows {
  const Element* data;
  std::ptrdiff_t row;
};

// The steps [from, to) as rows of whole vectors: where they are if that will do, else copied to `space` with zeros beyond.
template <class Element>
Rows<Element> rows_of(const SourceOf<Element>& source, std::int64_t from, std::int64_t to, Element* space) {
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
template <class Element>
Moments moments_of(const Element* rows, std::ptrdiff_t row, std::int64_t steps, int channels) {
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
template <class Element>
Moments moments(const GroupNormArgs& args, const SourceOf<Element>& source, std::int64_t begin, std::int64_t end,
                float* workspace) {
  const Rows<Element> rows = rows_of(source, begin, end, reinterpret_cast<Element*>(workspace));
  return moments_of(rows.data, rows.row, end - begin, args.channels);
}

// weight / deviation of each channel, padded to whole panels.
inline void norm_scale(const GroupNormArgs& args, const Moments& item, double eps, float* scale) {
  const double deviation = norm_deviation(item, eps);
  for (int c = 0; c < padded(args.channels); ++c) {
    scale[c] = static_cast<float>(static_cast<double>(args.weight[c]) / deviation);
  }
}

// y = act((x - mean) * scale + bias + added) for rows of `columns` channels, whole vectors.
template <class Element>
void normalise(const GroupNormArgs& args, const float* scale, double mean, const Rows<Element>& x,
               const Rows<Element>& added, Element* y, std::ptrdiff_t y_row, std::int64_t steps, int columns) {
  // The mean in two parts: one float of it would be too coarse beside a small deviation.
  const float high = static_cast<float>(mean), low = static_cast<float>(mean - static_cast<double>(high));
  with_function(args.act, [&](auto f) {
    Element* at = y;
    for (std::int64_t t = 0; t < steps; ++t, at += y_row) {
      for (int c = 0; c < columns; c += FASTVOC_WIDTH) {
        Vec v = ((load(x.data + t * x.row + c) - high) - low) * load(scale + c) + load(args.bias + c);
        if (added.data) v += load(added.data + t * added.row + c);
        store(at + c, f(v, c));
      }
    }
  });
}

// The op's steps [begin, end) from the moments of the whole item.
template <class Element>
void group_norm_act(const GroupNormArgs& args, const Moments& item, double eps, const SourceOf<Element>& source,
                    const SourceOf<Element>* residual, const SinkOf<Element>& sink, std::int64_t begin, std::int64_t end,
                    float* workspace) {
  const int width = padded(args.channels);
  const std::int64_t strip = moment_steps(args) - 1;  // a row of the scratch memory holds the scale
  const bool direct = args.channels % FASTVOC_WIDTH == 0;
  float* scale = workspace;
  Element* space = reinterpret_cast<Element*>(workspace + width);
  norm_scale(args, item, eps, scale);
  for (std::int64_t t = begin; t < end; t += strip) {
    const std::int64_t count = std::min(strip, end - t);
    const Rows<Element> x = rows_of(source, t, t + count, space);
    Rows<Element> added{nullptr, 0};
    if (residual) added = rows_of(*residual, t, t + count, space + strip * width);
    Element* y = direct ? sink.data + t * sink.channels : space + 2 * strip * width;
    const std::ptrdiff_t row = direct ? sink.channels : width;
    const int columns = static_cast<int>(ceil_div(args.channels, FASTVOC_WIDTH)) * FASTVOC_WIDTH;
    normalise(args, scale, item.mean, x, added, y, row, count, columns);
    if (!direct) copy_rows(sink, t, y, count);
  }
}

}  // namespace fastvoc::FASTVOC_ISA
