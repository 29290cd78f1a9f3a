// upsample: an activation and a transposed convolution, each output phase an ordinary convolution (polyphase form).
#pragma once

#include "paired.h"
#include "strip.h"
#include "upsample_args.h"

namespace fastvoc::FASTVOC_ISA {

template <class Element>
void upsample(const UpsampleArgs& args, const Filter<Element>& filter, const AnySource& source,
              const SinkOf<Outer<Element>>& sink, std::int64_t begin, std::int64_t end, float* workspace) {
  const bool merged = args.merged() && !std::is_same_v<Element, std::uint8_t>;
  const int cin = padded(args.cin), cout = merged ? args.cout : padded(args.cout);
  const int phases = merged ? 1 : args.stride, panels = (merged ? args.stride * cout : cout) / kPanel;
  const std::int64_t stride = args.stride;
  const std::int64_t history = std::max(args.reach() - 1, 0);
  // Output step t is step n = t + left of the full result, made of the input steps q, q - 1, ... with q = n / stride.
  const UpsampleRange inputs(args, begin, end);
  const std::int64_t strip = upsample_strip(args, inputs.steps());
  const Element zero = zero_of<Element>(args.pre);
  // Results as they are given: rounded where they lie in the registers.
  static constexpr Act none{};
  using Result = Outer<Element>;
  Result* const result = reinterpret_cast<Result*>(workspace);
  Element* held = reinterpret_cast<Element*>(workspace + strip * stride * cout);
  float* const differences = workspace + strip * stride * cout + (strip + history) * cin;
  for (std::int64_t q = inputs.begin; q < inputs.end; q += strip) {
    const std::int64_t count = std::min(strip, inputs.end - q);
    Strip<Element> in{held, cin, q - history, std::min(q + count, source.steps)};
    const std::int64_t valid = std::max<std::int64_t>(in.first, 0);
    if (valid < in.end) {
      load_rows(source, valid, in.end, nullptr, in.at(valid), args.pre);
    } else {
      in.end = valid;
    }
    in.pad_left(false, zero);
    in.pad_right(q + count, source.steps, false, zero);
    if constexpr (std::is_same_v<Element, float>) {
      const PairedFilter pair = paired_filter(filter, panels, args.cin, true);
      const TileOutput out{.raw = result, .raw_row = stride * cout};
      if (args.paired) paired_rows(pair, in.at(q) - cin, cin, out, count, panels, differences, args.team);
    }
    if (!args.paired) share_panels(args.team, panels, [&](int first, int last, int) {
      Filter<Element> of_phase = filter;
      for (int phase = 0; phase < phases; ++phase) {
        const auto tile = tile_input(in.at(q), cin, -cin, of_phase, args.taps(phase), args.cin);
        TileOutputOf<Element> out{.raw_row = stride * cout, .act_row = stride * cout, .activation = &none};
        if constexpr (std::is_same_v<Result, float>) {
          out.raw = result + phase * cout;
        } else {
          out.act = result + phase * cout;
        }
        conv_rows(tile.from(first), out.from(first), count, last - first);
        of_phase.weight += tile.panel * panels;
        if (of_phase.start) of_phase.start += cout;
      }
    });
    const std::int64_t from = std::max(begin, q * stride - args.left);
    const std::int64_t to = std::min(end, (q + count) * stride - args.left);
    copy_rows(sink, from, result + (from + args.left - q * stride) * cout, to - from, cout);
  }
}

}  // namespace fastvoc::FASTVOC_ISA
