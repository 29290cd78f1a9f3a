// convnext_stream: a ConvNeXt network on chunks of a few steps, its layers one after the other over the rows of all items. The
// weights are read once for all of them, at the speed of memory, so the members of a crew share out the channels.
#pragma once

#include "conv1d.h"
#include "convnext_block.h"
#include "convnext_stream_args.h"
#include "trio.h"

namespace fastvoc::FASTVOC_ISA {

// The input of one layer and item: its steps [begin, end) in rows, those before in the state.
struct ConvNextRows {
  const float* kept;
  const float* rows;
  const float* zeros;
  std::int64_t keeps;
  std::int64_t width;
  std::int64_t begin;
  std::int64_t end;

  const float* at(std::int64_t t) const {
    if (t >= end) return zeros;
    return t >= begin ? rows + (t - begin) * width : kept + (t - begin + keeps) * width;
  }
  // The state behind this chunk: row i of it.
  const float* rest(std::int64_t i) const { return at(end - keeps + i); }
};

class ConvNextRun {
 public:
  ConvNextRun(const ConvNextStreamArgs& args, const ConvNextChunk& chunk, CrewMember crew, float* workspace)
      : args_(args), chunk_(chunk), crew_(crew), width_(padded(args.channels)) {
    const std::int64_t floats = chunk.most(args) * args.items * args.row();
    flow_ = workspace;
    next_ = flow_ + floats;
    normal_ = next_ + floats;
    zeros_ = normal_ + floats;
    wide_ = zeros_ + args.row();
  }

  void run() {
    embed();
    std::int64_t kept = 2ll * args_.side(0) * args_.width(0);
    for (int b = 0; b < args_.count; ++b) {
      block(b, kept);
      kept += 2ll * args_.side(b + 1) * width_;
      std::swap(flow_, next_);
    }
    head();
  }

 private:
  std::int64_t rows(int layer) const { return args_.items * chunk_.count(args_, layer); }

  // Part i of `parts` of the rows of a layer's output, by item and step, then of its state.
  template <class Row>
  void rows_of(int layer, int i, int parts, const Row& row) const {
    const std::int64_t count = chunk_.count(args_, layer + 1), begin = chunk_.first(args_, layer + 1);
    range_of(args_.items * count, i, parts, [&](std::int64_t first, std::int64_t last, int) {
      for (std::int64_t r = first; r < last; ++r) row(r, r / count, begin + r % count);
    });
  }
  void keep(int layer, std::int64_t offset, int i, int parts, const auto& input) const {
    const std::int64_t keeps = 2ll * args_.side(layer), width = args_.width(layer);
    range_of(args_.items * keeps, i, parts, [&](std::int64_t first, std::int64_t last, int) {
      for (std::int64_t r = first; r < last; ++r) {
        const std::int64_t item = r / keeps, at = r % keeps;
        std::copy_n(input(item).rest(at), width, chunk_.after + item * args_.state_floats() + offset + at * width);
      }
    });
  }
  ConvNextRows input(int layer, std::int64_t offset, std::int64_t item, const float* rows) const {
    return {chunk_.before + item * args_.state_floats() + offset, rows, zeros_, 2ll * args_.side(layer), args_.width(layer),
            chunk_.first(args_, layer), chunk_.end(args_, layer)};
  }

  // The convolution and its norm: every output's window of inputs as one row.
  void embed() {
    const int cin = padded(args_.cin), side = args_.side(0);
    const std::ptrdiff_t window = args_.window();
    // The inputs as rows of padded width; they lie where the blocks' rows will be.
    float* const given = normal_;
    crew_.phase([&](int i, int parts) {
      if (i == 0) std::fill_n(zeros_, args_.row(), 0.0f);
      for (std::int64_t item = i; item < args_.items; item += parts) {
        load_rows(chunk_.sources[item], 0, chunk_.steps, nullptr, given + item * chunk_.steps * cin, Act{});
      }
    });
    const auto from = [&](std::int64_t item) { return input(0, 0, item, given + item * chunk_.steps * cin); };
    crew_.phase([&](int i, int parts) {
      rows_of(0, i, parts, [&](std::int64_t r, std::int64_t item, std::int64_t t) {
        const ConvNextRows x = from(item);
        for (int k = 0; k < args_.kernel; ++k) std::copy_n(x.at(t - side + k), cin, wide_ + r * window + k * cin);
      });
      keep(0, 0, i, parts, from);
    });
    const TileOutput out{.raw = flow_, .raw_row = width_};
    if (args_.trios) {
      multiply(0, wide_, window, out, rows(1));
    } else {
      const auto tile = tile_input(static_cast<const float*>(wide_), window, cin, args_.embed, args_.kernel, args_.cin);
      share_panels(crew_, static_cast<int>(width_ / kPanel), [&](int first, int last, int) {
        conv_rows(tile.from(first), out.from(first), rows(1), last - first);
      });
    }
    normalise(0, 1);
  }

  // The rows that are a layer's input, in place.
  void normalise(int norm, int layer) {
    const std::int64_t count = chunk_.count(args_, layer);
    share(crew_, args_.items * count, [&](std::int64_t first, std::int64_t last, int) {
      for (std::int64_t r = first; r < last; ++r) normalize_row(args_.norm(norm, r / count), flow_ + r * width_);
    });
  }

  // One block, whose state begins at `offset`: from `flow_` to `next_`.
  void block(int b, std::int64_t offset) {
    const ConvNextBlockArgs<float>& args = args_.blocks[b];
    const std::int64_t given = chunk_.count(args_, b + 1);
    const auto from = [&](std::int64_t item) { return input(b + 1, offset, item, flow_ + item * given * width_); };
    crew_.phase([&](int i, int parts) {
      rows_of(b + 1, i, parts, [&](std::int64_t r, std::int64_t item, std::int64_t t) {
        const ConvNextRows x = from(item);
        depthwise_row(args, [&](int k) { return x.at(t - args.kernel / 2 + k); }, normal_ + r * width_);
        normalize_row(args_.norm(b + 1, item), normal_ + r * width_);
        std::copy_n(x.at(t), width_, next_ + r * width_);
      });
      keep(b + 1, offset, i, parts, from);
    });
    if (rows(b + 2) == 0) return;
    const int hidden = padded(args.hidden);
    if (args_.trios) {
      const Act gelu{ActKind::kGelu};
      multiply(2 * b + 1, normal_, width_, hidden_output(wide_, hidden, gelu), rows(b + 2));
      const TileOutput out{.raw = next_, .residual = next_, .raw_row = width_, .residual_row = width_};
      multiply(2 * b + 2, wide_, hidden, out, rows(b + 2));
      return;
    }
    const ConvNextStrip<float> both{args, normal_, wide_, 0, hidden, next_, next_, zeros_, rows(b + 2)};
    share_panels(crew_, hidden / kPanel, [&](int first, int last, int) { both.expand(first, last); });
    share_panels(crew_, static_cast<int>(width_ / kPanel), [&](int first, int last, int) { both.project(first, last); });
  }

  // Layer i of the trios.
  void multiply(int i, const float* x, std::ptrdiff_t row, const TileOutput& out, std::int64_t count) {
    const Trios &layer = args_.trios[i], &after = args_.trios[(i + 1) % args_.products()];
    const std::uint32_t* const next = after.pair(crew_.own(trio_pairs(after.outputs)));
    share(crew_, trio_pairs(layer.outputs), [&](std::int64_t first, std::int64_t last, int) {
      trio_rows(layer, x, row, out, count, first, last, next);
    });
  }

  // The last norm and the linear layer.
  void head() {
    const int last_layer = args_.count + 1, width = padded(args_.out);
    normalise(last_layer, last_layer);
    const TileOutput out{.raw = wide_, .raw_row = width};
    if (args_.trios) {
      multiply(args_.products() - 1, flow_, width_, out, rows(last_layer));
    } else {
      const auto tile = tile_input(static_cast<const float*>(flow_), width_, 0, args_.head, 1, args_.channels);
      share_panels(crew_, width / kPanel, [&](int first, int last, int) {
        conv_rows(tile.from(first), out.from(first), rows(last_layer), last - first);
      });
    }
    const std::int64_t count = chunk_.count(args_, last_layer);
    share(crew_, rows(last_layer), [&](std::int64_t first, std::int64_t last, int) {
      for (std::int64_t r = first; r < last; ++r) store_rows(chunk_.sinks[r / count], r % count, wide_ + r * width, 1);
    });
  }

  const ConvNextStreamArgs& args_;
  const ConvNextChunk& chunk_;
  CrewMember crew_;
  std::ptrdiff_t width_;
  float* flow_;    // rows of the layer's input
  float* next_;    // of its output
  float* normal_;  // of the input of a block's first linear layer
  float* zeros_;
  float* wide_;    // rows of what is wider than the blocks
};

inline void convnext_stream(const ConvNextStreamArgs& args, const ConvNextChunk& chunk, CrewMember crew, float* workspace) {
  ConvNextRun(args, chunk, crew, workspace).run();
}

}  // namespace fastvoc::FASTVOC_ISA
