// stream_rows: what an op on a stream reads of a chunk and of what it kept, and what it keeps of them.
#include <cstring>

#include "glue.h"

namespace fastvoc {
namespace {

// Bytes from which on a second thread is worth its start.
constexpr int64_t kSharedBytes = 128 * 1024;

// Steps [from, to) of `steps` ones, each `channels` elements in a row of its own, to `rows`.
template <class Element>
void copy_steps(const Tensor& x, int64_t item, int64_t from, int64_t to, char* rows) {
  if (from >= to) return;
  const int64_t channels = x.size(1), step = x.stride(2), channel = x.stride(1);
  const auto* data = static_cast<const Element*>(x.const_data_ptr()) + item * x.stride(0);
  auto* out = reinterpret_cast<Element*>(rows);
  if (channel == 1 && step == channels) {
    std::memcpy(out, data + from * step, static_cast<std::size_t>((to - from) * channels) * sizeof(Element));
    return;
  }
  for (int64_t t = from; t < to; ++t, out += channels) {
    for (int64_t c = 0; c < channels; ++c) out[c] = data[t * step + c * channel];
  }
}

template <class Element>
void run(const StreamRowsCall& call, Tensor& window, Tensor& kept) {
  const Tensor& x = call.x;
  const MaybeTensor& tail = call.tail;
  const int64_t held = tail ? tail->size(1) : 0, have = held + x.size(2), channels = x.size(1);
  const auto size = static_cast<int64_t>(sizeof(Element));
  const auto copy = [&](int64_t item, int64_t from, int64_t to, char* rows) {
    const int64_t middle = std::clamp(held, from, to);
    if (from < middle) {
      const char* data = static_cast<const char*>(tail->const_data_ptr()) + (item * held + from) * channels * size;
      std::memcpy(rows, data, static_cast<std::size_t>((middle - from) * channels * size));
    }
    copy_steps<Element>(x, item, middle - held, to - held, rows + (middle - from) * channels * size);
  };
  const int64_t before = call.before, low = call.low, high = call.high, after = call.after, keep = call.keep;
  const int64_t rows = before + high - low + after, row = channels * size;
  char* const to = static_cast<char*>(window.mutable_data_ptr());
  char* const rest = static_cast<char*>(kept.mutable_data_ptr());
  const auto zero = [&](char* from, int64_t count) {
    if (count > 0) std::memset(from, 0, static_cast<std::size_t>(count * row));
  };
  // A thread copies the rows that it is likely to read.
  over_items(x.size(0), std::max<int64_t>(kSharedBytes / std::max<int64_t>(row, 1), 1), [&](int64_t) { return rows; },
             [&](int64_t item, int64_t begin, int64_t end) {
               char* const first = to + item * rows * row;
               const int64_t valid = before + high - low, from = std::clamp(begin, before, valid),
                             until = std::clamp(end, before, valid);
               zero(first + begin * row, std::min(end, before) - begin);
               copy(item, low + from - before, low + until - before, first + from * row);
               const int64_t behind = std::max(begin, valid);
               zero(first + behind * row, end - behind);
             });
  for (int64_t item = 0; item < x.size(0); ++item) copy(item, keep, have, rest + item * (have - keep) * row);
}

// Of the steps of `tail` [B, n, C] and then of x [B, C, T]: [low, high) between `before` and `after` ones of zeros, as
// [B, steps, C], and those from `keep` on.
std::tuple<Tensor, Tensor> stream_rows(const StreamRowsCall& call) {
  const Tensor& x = call.x;
  const MaybeTensor& tail = call.tail;
  STD_TORCH_CHECK(x.is_cpu() && x.dim() == 3, "stream_rows: expected x [B, C, T] on the CPU");
  const int64_t items = x.size(0), channels = x.size(1), held = tail ? tail->size(1) : 0, have = held + x.size(2);
  if (tail) {
    STD_TORCH_CHECK(tail->is_cpu() && tail->scalar_type() == x.scalar_type() && tail->dim() == 3 && tail->is_contiguous() &&
                        tail->size(0) == items && tail->size(2) == channels,
                    "tail: expected a contiguous [", items, ", n, ", channels, "] of the chunk's type");
  }
  STD_TORCH_CHECK(call.before >= 0 && 0 <= call.low && call.low <= call.high && call.high <= have && call.after >= 0 &&
                      0 <= call.keep && call.keep <= have,
                  "stream_rows: expected ranges inside of ", have, " steps");
  Tensor window = torch::stable::empty({items, call.before + call.high - call.low + call.after, channels}, x.scalar_type());
  Tensor kept = torch::stable::empty({items, have - call.keep, channels}, x.scalar_type());
  switch (x.element_size()) {
    case 2:
      run<std::uint16_t>(call, window, kept);
      break;
    case 4:
      run<std::uint32_t>(call, window, kept);
      break;
    case 8:
      run<std::uint64_t>(call, window, kept);
      break;
    default:
      STD_TORCH_CHECK(false, "x: expected elements of 2, 4 or 8 bytes, got ", x.element_size());
  }
  return {window, kept};
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CPU, m) {
  m.impl("stream_rows", fastvoc::boxed<fastvoc::StreamRowsCall, fastvoc::stream_rows>);
}
