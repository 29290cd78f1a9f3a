// An engine whose kernels count the multiply-adds that they are asked for, on the thread that is asked. Each call's are written
// to standard output when the next one begins: in all, and where the threads that wait for one another do most.
#include <cmath>
#include <cstdio>

#include "cpu/dispatch.h"
#include "cpu/threads.h"

#include <stand_in_threads.h>

namespace fastvoc {
namespace {

using splits::Count;

void panels_of(const Team* team, int panels, double products) {
  share(team, (panels + 1) / 2, [&](std::int64_t first, std::int64_t last, int) {
    Count::now().add(products * static_cast<double>(std::min<std::int64_t>(2 * last, panels) - 2 * first) / panels);
  });
}

void conv1d(const Conv1dArgs& args, const Filter<float>&, const AnySource&, const SourceOf<float>*, const Sink&,
            std::int64_t begin, std::int64_t end, float*) {
  const double taps = args.kernel * (args.paired ? 0.75 : 1.0);
  panels_of(args.team, padded(args.cout) / kPanelWidth, taps * args.cin * args.cout * static_cast<double>(end - begin));
}

void upsample(const UpsampleArgs& args, const Filter<float>&, const AnySource&, const Sink&, std::int64_t begin,
              std::int64_t end, float*) {
  const double taps = args.kernel * (args.paired ? 0.75 : 1.0);
  const int outputs = args.merged() ? args.stride * args.cout : padded(args.cout);
  const auto steps = static_cast<double>(UpsampleRange(args, begin, end).steps());
  panels_of(args.team, outputs / kPanelWidth, taps * args.cin * args.cout * steps);
}

// Every convolution makes what those after it read around the range, in whole tiles.
void mrf_convs(const MrfArgs& args, int first_conv, int last_conv, const AnySource& source, std::int64_t begin,
               std::int64_t end) {
  const int panels = std::max(1, args.width() / kPanelWidth);
  for (int i = first_conv; i < last_conv; ++i) {
    const MrfConv& conv = args.convs[i];
    const std::int64_t block = conv.block(), first = std::max<std::int64_t>(0, begin - conv.back) / block * block;
    const std::int64_t last = std::min(source.steps, end + conv.ahead), steps = ceil_div(last - first, block) * block;
    const double taps = conv.direct() ? conv.shape.kernel : double(conv.shape.taps()) / conv.shape.tile();
    panels_of(args.team, panels, taps * args.channels * args.channels * static_cast<double>(steps));
  }
}

void mrf(const MrfArgs& args, const Filter<float>*, const AnySource& source, const Sink&, std::int64_t begin, std::int64_t end,
         float*) {
  mrf_convs(args, 0, args.block_begin[args.blocks], source, begin, end);
}

void mrf_block(const MrfArgs& args, const Filter<float>*, int block, const AnySource& source, float*, std::int64_t end,
               float*) {
  mrf_convs(args, args.block_begin[block], args.block_begin[block + 1], source, 0, end);
}

// No products.
void mrf_mean(const MrfArgs&, const float*, std::int64_t, const Sink&, std::int64_t, std::int64_t) {}

void print() {
  static bool begun = false;
  if (begun) std::printf("%.0f %.0f\n", Count::now().busy(), Count::now().wall());
  begun = true;
  Count::now().begin_call();
}

}  // namespace

// Every thread takes its own range of the pieces, and nobody takes another's.
void fork_join(std::int64_t count, std::int64_t threads, void (*piece)(const void*, std::int64_t), const void* work) {
  const std::int64_t members = std::max<std::int64_t>(1, std::min(count, threads)), each = ceil_div(count, members);
  Count::now().region(static_cast<std::size_t>(members), [&](std::size_t i) {
    const auto m = static_cast<std::int64_t>(i);
    for (std::int64_t n = m * each; n < std::min((m + 1) * each, count); ++n) piece(work, n);
  });
}

const Engine& engine() {
  static const Kernels<float> floats{
      .convolutions = {.conv1d = conv1d, .upsample = upsample, .mrf = mrf, .mrf_block = mrf_block, .mrf_mean = mrf_mean}};
  static const FloatKernels only_floats{};
  static const Kernels<Bf16> halves{};
  static const Convolutions<std::uint8_t> bytes{};
  static const Engine counting{floats, only_floats, halves, bytes};
  Count::now();  // made before, hence there after
  static const int at_exit = std::atexit(print);
  if (at_exit == 0) print();
  return counting;
}

}  // namespace fastvoc
