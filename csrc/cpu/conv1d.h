// conv1d: y = post(conv(pad(pre(x))) + bias + residual), strip by strip.
#pragma once

#include "conv1d_args.h"
#include "conv1d_single.h"
#include "paired.h"
#include "strip.h"

namespace fastvoc::FASTVOC_ISA {

// Adds the residual to `count` computed rows of `width`, activates them and writes them to the output from step `t` on.
template <class Given>
void finish_rows(const Conv1dArgs& args, const SourceOf<Given>* residual, const SinkOf<Given>& sink, std::int64_t t,
                 float* rows, std::int64_t count, int width) {
  const int whole = residual && residual->channel == 1 ? args.cout / FASTVOC_WIDTH * FASTVOC_WIDTH : 0;
  for (std::int64_t i = 0; residual && i < count; ++i) {
    const Given* r = residual->data + (t + i) * residual->step;
    float* const row = rows + i * width;
    for (int c = 0; c < whole; c += FASTVOC_WIDTH) store(row + c, load(row + c) + load(r + c));
    for (int c = whole; c < args.cout; ++c) row[c] += widen(r[c * residual->channel]);
  }
  if (args.post.kind == ActKind::kSnake) {
    activate_rows(args.post, rows, width, count, 0, width);
    return store_rows(sink, t, rows, count);
  }
  for (std::int64_t i = 1; width != args.cout && i < count; ++i) {
    std::memmove(rows + i * args.cout, rows + i * width, static_cast<std::size_t>(args.cout) * sizeof(float));
  }
  activate_flat(args.post, rows, count * args.cout);
  narrow_row(rows, sink.data + t * args.cout, count * args.cout);
}

// Whether the tiles' results, with the residual, are the outputs as they lie: floats in whole panels, not activated.
template <class Element>
bool writes_directly(const Conv1dArgs& args, const SourceOf<Outer<Element>>* residual) {
  if constexpr (!std::is_same_v<Element, float>) return false;
  const bool plain = args.post.kind == ActKind::kLeaky && args.post.slope == 1.0f;
  return plain && args.cout % kPanel == 0 && (!residual || residual->channel == 1);
}

// The step that padding step t repeats; negative for zeros.
inline std::int64_t padding_source(std::int64_t t, std::int64_t steps, Pad pad) {
  if (pad == Pad::kZeros) return -1;
  if (pad == Pad::kReplicate) return t < 0 ? 0 : steps - 1;
  return t < 0 ? -t : 2 * (steps - 1) - t;
}

// Fills `rows` of `width` elements with the padded, activated steps [from, to); load(first, last, rows) loads those of the source.
template <class Element, class Load>
void padded_rows(const Conv1dArgs& args, const AnySource& source, std::int64_t from, std::int64_t to, Element* rows,
                 int width, const Load& load) {
  const std::int64_t valid = std::clamp<std::int64_t>(0, from, to), end = std::clamp(source.steps, valid, to);
  const auto pad = [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t t = first; t < last; ++t) {
      const std::int64_t s = padding_source(t, source.steps, args.pad);
      Element* row = rows + (t - from) * width;
      if (s < 0) {
        std::fill_n(row, width, zero_of<Element>(args.pre));
      } else {
        load(s, s + 1, row);
      }
    }
  };
  pad(from, valid);
  load(valid, end, rows + (valid - from) * width);
  pad(end, to);
}

// The same in rows of whole panels.
template <class Element>
void padded_rows(const Conv1dArgs& args, const AnySource& source, std::int64_t from, std::int64_t to, Element* rows) {
  padded_rows(args, source, from, to, rows, padded(args.cin), [&](std::int64_t first, std::int64_t last, Element* y) {
    load_rows(source, first, last, nullptr, y, args.pre);
  });
}

// conv1d to one output channel, whose products the lanes share out.
template <class Element>
void conv1d_single(const Conv1dArgs& args, const Filter<Element>& filter, const AnySource& source,
                   const SourceOf<Outer<Element>>* residual, const SinkOf<Outer<Element>>& sink, std::int64_t begin,
                   std::int64_t end, float* workspace) {
  const std::int64_t strip = conv1d_strip(args, end - begin);
  Element* held = reinterpret_cast<Element*>(workspace + padded(static_cast<int>(strip)));
  const auto load = [&](std::int64_t from, std::int64_t to, Element* rows) {
    source.visit([&](const auto& typed) { load_dense(typed, from, to, rows, args.pre); });
  };
  for (std::int64_t t = begin; t < end; t += strip) {
    const std::int64_t count = std::min(strip, end - t), from = t * args.stride - args.left;
    padded_rows(args, source, from, from + (count - 1) * args.stride + args.kernel, held, args.cin, load);
    single_rows(args, held, filter, workspace, count);
    finish_rows(args, residual, sink, t, workspace, count, 1);
  }
}

template <class Element>
void conv1d(const Conv1dArgs& args, const Filter<Element>& filter, const AnySource& source,
            const SourceOf<Outer<Element>>* residual, const SinkOf<Outer<Element>>& sink, std::int64_t begin,
            std::int64_t end, float* workspace) {
  if constexpr (!std::is_same_v<Element, std::uint8_t>) {
    if (args.single()) return conv1d_single(args, filter, source, residual, sink, begin, end, workspace);
  }
  const int cin = padded(args.cin), cout = padded(args.cout);
  const std::int64_t strip = conv1d_strip(args, end - begin);
  const std::int64_t span = static_cast<std::int64_t>(args.dilation) * (args.kernel - 1) + 1;
  float* result = workspace;
  Element* held = reinterpret_cast<Element*>(workspace + strip * cout);
  const auto tile = tile_input(held, static_cast<std::ptrdiff_t>(args.stride) * cin,
                               static_cast<std::ptrdiff_t>(args.dilation) * cin, filter, args.kernel, args.cin);
  TileOutputOf<Element> out{.raw = result, .raw_row = cout};
  const bool direct = writes_directly<Element>(args, residual);
  float* const differences = workspace + strip * cout + (strip * args.stride + span) * cin;
  for (std::int64_t t = begin; t < end; t += strip) {
    const std::int64_t count = std::min(strip, end - t);
    const std::int64_t from = t * args.stride - args.left;
    padded_rows(args, source, from, from + (count - 1) * args.stride + span, held);
    if constexpr (std::is_same_v<Element, float>) {
      if (direct) out.raw = sink.data + t * cout;
      if (direct && residual) {
        out.residual = residual->data + t * residual->step;
        out.residual_row = residual->step;
      }
    }
    if constexpr (std::is_same_v<Element, float>) {
      const PairedFilter pair = paired_filter(filter, cout / kPanel, args.stride * cin, false);
      if (args.paired) paired_rows(pair, held, tile.row, out, count, cout / kPanel, differences, args.team);
    }
    if (!args.paired) share_panels(args.team, cout / kPanel, [&](int first, int last, int) {
      conv_rows(tile.from(first), out.from(first), count, last - first);
    });
    if (!direct) finish_rows(args, residual, sink, t, result, count, cout);
  }
}

}  // namespace fastvoc::FASTVOC_ISA
