// Torch's view of resample.
#include "glue.h"

namespace fastvoc {
namespace {

// Multiply-adds from which on a second thread is worth its start.
constexpr int64_t kShared = 1 << 16;

// Rows of floats, each in memory of its own.
class Signals {
 public:
  Signals(const Tensor& x, int64_t rows, const char* name) : x_(x) {
    check_floats(x, name);
    STD_TORCH_CHECK(x.dim() == 2 && x.size(0) == rows && (x.stride(1) == 1 || x.size(1) <= 1), name, ": expected [", rows,
                    ", n] with dense rows");
  }

  int64_t steps() const { return x_.size(1); }
  const float* row(int64_t i) const { return elements<float>(x_) + i * x_.stride(0); }

 private:
  const Tensor& x_;
};

// Inputs [from, have + after) of a source that has `have` of them, then silence.
void keep(const ResampleSource& source, int64_t from, int64_t after, float* to) {
  const int64_t have = source.held + source.given, begin = std::min(from, have);
  for (int64_t i = begin; i < source.held; ++i) *to++ = source.tail[i];
  for (int64_t i = std::max(begin, source.held); i < have; ++i) *to++ = source.chunk[i - source.held];
  std::fill_n(to, after - (from - begin), 0.0f);
}

// `count` outputs from `phase` on, the inputs from `keep` on of tail, x and `after` zeros, and of s16 how many each row clips.
std::tuple<Tensor, Tensor, Tensor> resample(const ResampleCall& call) {
  STD_TORCH_CHECK(call.up >= 1 && call.down >= 1 && call.reach >= 1 && call.phase >= 0 && call.phase < call.up,
                  "resample: expected positive rates and a phase below ", call.up);
  ResampleArgs args{nullptr, call.up, call.down, call.reach, call.phase};
  args.taps = packed(call.taps, args.up * args.row(), "taps");
  const int64_t rows = call.x.dim() == 2 ? call.x.size(0) : -1;
  const Signals chunk(call.x, rows, "x"), tail(call.tail, rows, "tail");
  const int64_t all = tail.steps() + chunk.steps() + call.after;
  STD_TORCH_CHECK(call.after >= 0 && call.count >= 0 && call.keep >= 0 && call.keep <= all,
                  "resample: expected counts that are not negative, and to keep some of ", all, " inputs");
  using torch::headeronly::ScalarType;
  Tensor y = torch::stable::empty({rows, call.count}, call.s16 ? ScalarType::Short : ScalarType::Float);
  Tensor kept = torch::stable::empty({rows, all - call.keep}, ScalarType::Float);
  Tensor clipped = torch::stable::empty({rows}, ScalarType::Long);
  void* const made = y.mutable_data_ptr();
  auto* const counts = clipped.mutable_data_ptr<int64_t>();
  const auto source = [&](int64_t row) -> ResampleSource {
    return {tail.row(row), tail.steps(), chunk.row(row), chunk.steps()};
  };
  for (int64_t row = 0; row < rows; ++row) {
    counts[row] = 0;
    keep(source(row), call.keep, call.after, kept.mutable_data_ptr<float>() + row * kept.size(1));
  }
  if (!rows || !call.count) return {y, kept, clipped};
  const auto& kernel = engine().only_floats.resample;
  over_items(rows, ceil_div(kShared, args.width()), [&](int64_t) { return call.count; },
             [&](int64_t row, int64_t begin, int64_t end) {
               float* memory = Arena::mine().floats(static_cast<std::size_t>(workspace_floats(args, end - begin)));
               const int64_t at = row * call.count;
               const ResampleSink sink = call.s16 ? ResampleSink{nullptr, static_cast<int16_t*>(made) + at, counts + row}
                                                  : ResampleSink{static_cast<float*>(made) + at, nullptr, nullptr};
               kernel(args, source(row), sink, begin, end, memory);
             });
  return {y, kept, clipped};
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CPU, m) { m.impl("resample", fastvoc::boxed<fastvoc::ResampleCall, fastvoc::resample>); }
