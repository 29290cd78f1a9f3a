// stream_sum: two signals of a stream that arrive at different times, added up as far as both have come.
#include <cstring>

#include "glue.h"

namespace fastvoc {
namespace {

// One signal of an item: rows kept from before, then those of the chunk.
struct Branch {
  const float* kept;
  int64_t keeps;
  const float* given;
  std::ptrdiff_t step;
  std::ptrdiff_t channels;

  const float* at(int64_t t) const { return t < keeps ? kept + t * channels : given + (t - keeps) * step; }
};

class Signal {
 public:
  Signal(const Tensor& x, const Tensor& kept, const char* name) : x_(x), kept_(kept) {
    check_floats(x, name);
    check_floats(kept, "kept");
    STD_TORCH_CHECK(x.dim() == 3 && (x.stride(1) == 1 || x.size(2) == 0), name, ": expected a time-major [B, C, T]");
    STD_TORCH_CHECK(kept.dim() == 3 && kept.is_contiguous() && kept.size(0) == x.size(0) && kept.size(2) == x.size(1),
                    "kept: expected a contiguous [", x.size(0), ", n, ", x.size(1), "]");
  }

  int64_t steps() const { return kept_.size(1) + x_.size(2); }
  Branch item(int64_t i) const {
    const int64_t channels = x_.size(1), keeps = kept_.size(1);
    return {kept_.const_data_ptr<float>() + i * keeps * channels, keeps, x_.const_data_ptr<float>() + i * x_.stride(0),
            x_.stride(2), channels};
  }
  // What lies behind the first `count` steps.
  Tensor rest(int64_t count) const {
    const int64_t items = x_.size(0), channels = x_.size(1), left = steps() - count;
    Tensor rows = torch::stable::empty({items, left, channels}, torch::headeronly::ScalarType::Float);
    float* to = rows.mutable_data_ptr<float>();
    for (int64_t i = 0; i < items; ++i) {
      const Branch from = item(i);
      for (int64_t t = 0; t < left; ++t, to += channels) std::copy_n(from.at(count + t), channels, to);
    }
    return rows;
  }

 private:
  const Tensor& x_;
  const Tensor& kept_;
};

// x and y [B, C, T], what was kept of each [B, n, C] -> their sum [B, C, steps], what is kept now.
std::tuple<Tensor, Tensor, Tensor> stream_sum(const StreamSumCall& call) {
  const Tensor &x = call.x, &y = call.y;
  const Signal a(x, call.kept_x, "x"), b(y, call.kept_y, "y");
  const int64_t items = x.size(0), channels = x.size(1), count = std::min(a.steps(), b.steps());
  STD_TORCH_CHECK(y.size(0) == items && y.size(1) == channels, "y: expected [", items, ", ", channels, ", T]");
  const Output out(items, as_int(channels), count);
  over_items(items, std::max<int64_t>(1, 65536 / std::max<int64_t>(channels, 1)), [&](int64_t) { return count; },
             [&](int64_t item, int64_t begin, int64_t end) {
               const Branch p = a.item(item), q = b.item(item);
               float* to = out.sink(item).data + begin * channels;
               for (int64_t t = begin; t < end; ++t, to += channels) {
                 const float *from = p.at(t), *other = q.at(t);
                 for (int64_t c = 0; c < channels; ++c) to[c] = from[c] + other[c];
               }
             });
  return {out.tensor(), a.rest(count), b.rest(count)};
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CPU, m) {
  m.impl("stream_sum", fastvoc::boxed<fastvoc::StreamSumCall, fastvoc::stream_sum>);
}
