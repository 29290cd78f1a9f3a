// Torch's view of the CPU kernels: checks, output tensors, threads. Calls nothing of torch that computes.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <optional>
#include <vector>

#include "args.h"
#include "arena.h"
#include "denormals.h"
#include "dispatch.h"

namespace {

using fastvoc::Sink;
using fastvoc::Source;
using torch::stable::Tensor;
using Ints = std::vector<int64_t>;

void check_floats(const Tensor& t, const char* name) {
  STD_TORCH_CHECK(t.is_cpu() && t.scalar_type() == torch::headeronly::ScalarType::Float, name,
                  ": expected a float32 tensor on the CPU");
}

// Packed weights: flat memory of a known number of floats.
const float* packed(const Tensor& t, int64_t floats, const char* name) {
  check_floats(t, name);
  STD_TORCH_CHECK(t.is_contiguous() && t.numel() == floats, name, ": expected ", floats, " packed floats, got ", t.numel());
  return t.const_data_ptr<float>();
}

// The items of a [B, C, T] batch, each with its own length.
class Batch {
 public:
  Batch(const Tensor& x, int64_t channels, const std::optional<Tensor>& lengths) : x_(x) {
    check_floats(x, "x");
    STD_TORCH_CHECK(x.dim() == 3 && x.size(1) == channels, "x: expected [B, ", channels, ", T]");
    if (lengths) {
      STD_TORCH_CHECK(lengths->is_cpu() && lengths->scalar_type() == torch::headeronly::ScalarType::Long &&
                          lengths->is_contiguous() && lengths->numel() == items(),
                      "lengths: expected ", items(), " contiguous int64 values on the CPU");
      lengths_ = lengths->const_data_ptr<int64_t>();
      for (int64_t i = 0; i < items(); ++i) {
        STD_TORCH_CHECK(lengths_[i] >= 1 && lengths_[i] <= steps(), "lengths: expected values in 1..", steps());
      }
    }
  }

  int64_t items() const { return x_.size(0); }
  int64_t steps() const { return x_.size(2); }
  int64_t length(int64_t item) const { return lengths_ ? lengths_[item] : steps(); }

  Source source(int64_t item) const {
    return {x_.const_data_ptr<float>() + item * x_.stride(0), x_.stride(2), x_.stride(1), length(item),
            static_cast<int>(x_.size(1))};
  }

 private:
  Tensor x_;
  const int64_t* lengths_ = nullptr;
};

// A new time-major output, seen as [B, C, T].
class Output {
 public:
  Output(int64_t items, int channels, int64_t steps)
      : rows_(torch::stable::empty({items, steps, channels}, torch::headeronly::ScalarType::Float)),
        data_(rows_.mutable_data_ptr<float>()),
        channels_(channels),
        steps_(steps) {}

  Sink sink(int64_t item) const { return {data_ + item * steps_ * channels_, channels_}; }

  // Zeros from step `valid` of an item on.
  void clear_tail(int64_t item, int64_t valid) const {
    std::fill(data_ + (item * steps_ + valid) * channels_, data_ + (item + 1) * steps_ * channels_, 0.0f);
  }

  Tensor tensor() const { return torch::stable::transpose(rows_, 1, 2); }

 private:
  Tensor rows_;
  float* data_;
  int channels_;
  int64_t steps_;
};

// Calls work(item, begin, end) for ranges of output steps of every item on torch's threads. Where a range begins never
// changes a result, so neither does their number.
template <class Steps, class Work>
void over_items(int64_t items, int64_t shortest, const Steps& steps, const Work& work) {
  const int64_t threads = torch::stable::get_num_threads();
  int64_t longest = 0;
  for (int64_t i = 0; i < items; ++i) longest = std::max(longest, steps(i));
  const int64_t wanted = items % threads ? threads : 1;
  const int64_t parts = std::clamp<int64_t>(longest / shortest, 1, wanted);
  torch::stable::parallel_for(0, items * parts, 1, [&](int64_t first, int64_t last) {
    const fastvoc::FlushDenormals flush;
    for (int64_t task = first; task < last; ++task) {
      const int64_t item = task / parts, part = task % parts, total = steps(item);
      const int64_t begin = total * part / parts, end = total * (part + 1) / parts;
      if (begin < end) work(item, begin, end);
    }
  });
}

int as_int(int64_t v) { return static_cast<int>(v); }

Tensor conv1d(Tensor x, Tensor weight, Tensor bias, std::optional<Tensor> residual, std::optional<Tensor> lengths,
              Ints shape, std::vector<double> slopes, bool tanh) {
  STD_TORCH_CHECK(shape.size() == 8 && slopes.size() == 2, "conv1d: expected 8 shape values and 2 slopes");
  fastvoc::Conv1dArgs args{};
  args.cout = as_int(shape[0]);
  args.cin = as_int(shape[1]);
  args.kernel = as_int(shape[2]);
  args.stride = as_int(shape[3]);
  args.dilation = as_int(shape[4]);
  args.left = as_int(shape[5]);
  args.right = as_int(shape[6]);
  args.reflect = shape[7] != 0;
  args.tanh = tanh;
  args.pre_slope = static_cast<float>(slopes[0]);
  args.post_slope = static_cast<float>(slopes[1]);
  const int width = fastvoc::padded(args.cout);
  args.weight = packed(weight, int64_t{1} * width * args.kernel * args.cin, "weight");
  args.bias = packed(bias, width, "bias");
  const int64_t span = int64_t{1} * args.dilation * (args.kernel - 1) + 1;
  STD_TORCH_CHECK(args.left < span && args.right < span, "conv1d: padding must be shorter than the kernel's span");

  const Batch batch(x, args.cin, lengths);
  const auto made = [&](int64_t steps) { return (steps + args.left + args.right - span) / args.stride + 1; };
  const Output out(batch.items(), args.cout, made(batch.steps()));
  if (residual) check_floats(*residual, "residual");
  const fastvoc::Engine& engine = fastvoc::engine();
  const auto steps = [&](int64_t item) { return made(batch.length(item)); };
  over_items(batch.items(), 24, steps, [&](int64_t item, int64_t begin, int64_t end) {
    const int64_t count = workspace_floats(args, end - begin);
    float* memory = fastvoc::Arena::mine().floats(static_cast<std::size_t>(count));
    Source added{};
    if (residual) {
      added = {residual->const_data_ptr<float>() + item * residual->stride(0), residual->stride(2), residual->stride(1),
               made(batch.length(item)), args.cout};
    }
    engine.conv1d(args, batch.source(item), residual ? &added : nullptr, out.sink(item), begin, end, memory);
  });
  for (int64_t i = 0; i < batch.items(); ++i) out.clear_tail(i, steps(i));
  return out.tensor();
}

Tensor upsample(Tensor x, Tensor weight, Tensor bias, std::optional<Tensor> lengths, Ints shape, double slope) {
  STD_TORCH_CHECK(shape.size() == 6, "upsample: expected 6 shape values");
  fastvoc::UpsampleArgs args{};
  args.cout = as_int(shape[0]);
  args.cin = as_int(shape[1]);
  args.kernel = as_int(shape[2]);
  args.stride = as_int(shape[3]);
  args.left = as_int(shape[4]);
  args.right = as_int(shape[5]);
  args.slope = static_cast<float>(slope);
  const int width = fastvoc::padded(args.cout);
  args.weight = packed(weight, int64_t{1} * width * args.kernel * args.cin, "weight");
  args.bias = packed(bias, width, "bias");
  STD_TORCH_CHECK(args.left >= 0, "upsample: the left crop must not be negative");

  const Batch batch(x, args.cin, lengths);
  const auto made = [&](int64_t n) { return (n - 1) * args.stride + args.kernel - args.left - args.right; };
  const Output out(batch.items(), args.cout, made(batch.steps()));
  const fastvoc::Engine& engine = fastvoc::engine();
  const auto steps = [&](int64_t item) { return made(batch.length(item)); };
  over_items(batch.items(), 12 * args.stride, steps, [&](int64_t item, int64_t begin, int64_t end) {
    const int64_t count = workspace_floats(args, end - begin);
    float* memory = fastvoc::Arena::mine().floats(static_cast<std::size_t>(count));
    engine.upsample(args, batch.source(item), out.sink(item), begin, end, memory);
  });
  for (int64_t i = 0; i < batch.items(); ++i) out.clear_tail(i, steps(i));
  return out.tensor();
}

Tensor mrf(Tensor x, Tensor weight, Tensor bias, std::optional<Tensor> lengths, Ints kernels, Ints dilations, Ints layers,
           int64_t depth, double slope, bool reflect) {
  const int channels = as_int(x.size(1));
  const int width = fastvoc::padded(channels);
  const std::size_t count = kernels.size();
  int64_t floats = 0, total = 0, longest = 0;
  for (int64_t k : kernels) floats += k * width * channels;
  for (int64_t n : layers) {
    total += n * depth;
    longest = std::max(longest, n * depth);
  }
  STD_TORCH_CHECK(count == dilations.size() && static_cast<int64_t>(count) == total && count > 0 &&
                      layers.size() <= fastvoc::kMaxBlocks && longest <= fastvoc::kMaxConvs,
                  "mrf: kernels, dilations and layers do not fit together");
  const float* w = packed(weight, floats, "weight");
  const float* b = packed(bias, static_cast<int64_t>(count) * width, "bias");

  std::vector<fastvoc::MrfConv> convs(count);
  for (std::size_t i = 0; i < count; ++i) {
    const int kernel = as_int(kernels[i]), dilation = as_int(dilations[i]);
    convs[i] = {w, b, kernel, dilation, (kernel - 1) * dilation / 2, 0};
    w += int64_t{1} * kernel * width * channels;
    b += width;
  }
  std::vector<int> begins{0};
  int halo = 0;
  for (int64_t n : layers) {
    const int begin = begins.back(), end = begin + as_int(n * depth);
    for (int i = end - 2; i >= begin; --i) {
      const auto j = static_cast<std::size_t>(i);
      convs[j].reach = convs[j + 1].reach + convs[j + 1].pad;
    }
    halo = std::max(halo, convs[static_cast<std::size_t>(begin)].reach + convs[static_cast<std::size_t>(begin)].pad);
    begins.push_back(end);
  }
  const fastvoc::MrfArgs args{convs.data(),         begins.data(), as_int(static_cast<int64_t>(layers.size())),
                              as_int(depth),        channels,      static_cast<float>(slope),
                              reflect};

  const Batch batch(x, channels, lengths);
  const Output out(batch.items(), channels, batch.steps());
  const fastvoc::Engine& engine = fastvoc::engine();
  const auto steps = [&](int64_t item) { return batch.length(item); };
  over_items(batch.items(), std::max(halo, 24), steps, [&](int64_t item, int64_t begin, int64_t end) {
    const int64_t needed = workspace_floats(args, end - begin);
    float* memory = fastvoc::Arena::mine().floats(static_cast<std::size_t>(needed));
    engine.mrf(args, batch.source(item), out.sink(item), begin, end, memory);
  });
  for (int64_t i = 0; i < batch.items(); ++i) out.clear_tail(i, steps(i));
  return out.tensor();
}

int64_t cpu_isa() { return fastvoc::current_isa(); }

int64_t limit_isa(int64_t isa) {
  STD_TORCH_CHECK(isa >= fastvoc::kPortable && isa <= fastvoc::kAvx512Bf16, "limit_isa: unknown instruction set ", isa);
  fastvoc::limit_isa(static_cast<fastvoc::Isa>(isa));
  return cpu_isa();
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CPU, m) {
  m.impl("conv1d", TORCH_BOX(&conv1d));
  m.impl("upsample", TORCH_BOX(&upsample));
  m.impl("mrf", TORCH_BOX(&mrf));
}

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CompositeExplicitAutograd, m) {
  m.impl("cpu_isa", TORCH_BOX(&cpu_isa));
  m.impl("limit_isa", TORCH_BOX(&limit_isa));
}
