// What the torch side of every op needs: checks, items, output tensors, threads. Calls nothing of torch that computes.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <optional>
#include <type_traits>
#include <vector>

#include "args.h"
#include "arena.h"
#include "common/calls.h"
#include "denormals.h"
#include "dispatch.h"
#include "fork_join.h"
#include "pages.h"

namespace fastvoc {

// The element types that activations and weights may have: what torch calls them, and where a tensor of them lies.
template <class Element>
constexpr auto scalar_type = torch::headeronly::ScalarType::Float;
template <>
inline constexpr auto scalar_type<Bf16> = torch::headeronly::ScalarType::BFloat16;
template <>
inline constexpr auto scalar_type<std::int8_t> = torch::headeronly::ScalarType::Char;
template <>
inline constexpr auto scalar_type<std::int32_t> = torch::headeronly::ScalarType::Int;

template <class Element>
constexpr const char* scalar_name() {
  if constexpr (std::is_same_v<Element, Bf16>) return "bfloat16";
  else if constexpr (std::is_same_v<Element, std::int8_t>) return "int8";
  else if constexpr (std::is_same_v<Element, std::int32_t>) return "int32";
  else return "float32";
}

template <class Element>
void check_elements(const Tensor& t, const char* name) {
  STD_TORCH_CHECK(t.is_cpu() && t.scalar_type() == scalar_type<Element>, name, ": expected a tensor of ",
                  scalar_name<Element>(), " on the CPU");
}

inline void check_floats(const Tensor& t, const char* name) { check_elements<float>(t, name); }

template <class Element>
const Element* elements(const Tensor& t) {
  return static_cast<const Element*>(t.const_data_ptr());
}

// Packed weights: flat memory of a known number of elements.
template <class Element = float>
const Element* packed(const Tensor& t, int64_t count, const char* name) {
  check_elements<Element>(t, name);
  STD_TORCH_CHECK(t.is_contiguous() && t.numel() == count, name, ": expected ", count, " packed values, got ", t.numel());
  return elements<Element>(t);
}

// Calls use(element) with an element of x's type, bfloat16 or float32.
template <class Use>
auto by_type(const Tensor& x, const Use& use) {
  return x.scalar_type() == scalar_type<Bf16> ? use(Bf16{}) : use(float{});
}

// Calls use(element) with an element of the type in which a convolution by `weight` multiplies.
template <class Use>
auto by_element(const Tensor& weight, const Use& use) {
  if (weight.scalar_type() == scalar_type<std::int8_t>) return use(std::uint8_t{});
  return weight.scalar_type() == scalar_type<Bf16> ? use(Bf16{}) : use(float{});
}

// The weights of convolutions from one packed tensor, in the order of their use.
template <class Element>
class Filters {
 public:
  // `weights` elements in all; biases of `width` channels each, `starts` times as many starts of each one's sums.
  Filters(const Tensor& weight, int64_t weights, const Tensor& bias, int64_t count, int width, int starts = 1)
      : weight_(packed<typename Numbers<Element>::Weight>(weight, weights, "weight")),
        bias_(packed(bias, count * width * (kBytes ? 2 + starts : 1), "bias")),
        width_(width),
        starts_(starts) {}

  // The next convolution's, of so many weights.
  Filter<Element> next(int64_t weights) {
    Filter<Element> filter{weight_, bias_};
    weight_ += weights;
    bias_ += width_;
    if constexpr (kBytes) {
      filter.scale = bias_;
      filter.start = reinterpret_cast<const std::int32_t*>(bias_ + width_);
      bias_ += (1 + starts_) * width_;
    }
    return filter;
  }

 private:
  static constexpr bool kBytes = std::is_same_v<Element, std::uint8_t>;

  const typename Numbers<Element>::Weight* weight_;
  const float* bias_;
  int width_;
  int starts_;
};

// The activations of a call as fastvoc/runtime/packing.py packs them; channels(i) are those of the i-th. Where bytes are made of
// their results, all the steps and all the zeros follow the slopes.
template <class Given, class Channels>
std::vector<Act> activations(const Given& call, std::size_t count, const Channels& channels) {
  const Ints& kinds = call.kinds;
  const Doubles& slopes = call.slopes;
  const MaybeTensor& curves = call.curves;
  const bool bytes = slopes.size() == 3 * count;
  STD_TORCH_CHECK(kinds.size() == count && (bytes || slopes.size() == count), "activations: expected ", count,
                  " kinds and slopes");
  std::vector<Act> acts(count);
  int64_t floats = 0;
  for (std::size_t i = 0; i < count; ++i) {
    STD_TORCH_CHECK(kinds[i] >= 0 && kinds[i] <= static_cast<int64_t>(ActKind::kSnake), "activations: unknown kind ",
                    kinds[i]);
    acts[i] = {static_cast<ActKind>(kinds[i]), static_cast<float>(slopes[i])};
    if (bytes) {
      acts[i].steps = static_cast<float>(slopes[count + i]);
      acts[i].zero = static_cast<float>(slopes[2 * count + i]);
    }
    if (acts[i].kind == ActKind::kSnake) floats += 2 * padded(channels(i));
  }
  if (floats == 0) return acts;
  STD_TORCH_CHECK(curves.has_value(), "activations: a snake needs its curves");
  const float* at = packed(*curves, floats, "curves");
  for (std::size_t i = 0; i < count; ++i) {
    if (acts[i].kind != ActKind::kSnake) continue;
    const int width = padded(channels(i));
    acts[i].alpha = at;
    acts[i].inverse = at + width;
    at += 2 * width;
  }
  return acts;
}

// The valid steps of each item: those that `lengths` gives, or all.
class Lengths {
 public:
  Lengths(const MaybeTensor& lengths, int64_t items, int64_t steps) : steps_(steps) {
    if (!lengths) return;
    STD_TORCH_CHECK(lengths->is_cpu() && lengths->scalar_type() == torch::headeronly::ScalarType::Long &&
                        lengths->is_contiguous() && lengths->numel() == items,
                    "lengths: expected ", items, " contiguous int64 values on the CPU");
    values_ = lengths->const_data_ptr<int64_t>();
    for (int64_t i = 0; i < items; ++i) {
      STD_TORCH_CHECK(values_[i] >= 1 && values_[i] <= steps, "lengths: expected values in 1..", steps);
    }
  }

  int64_t operator[](int64_t item) const { return values_ ? values_[item] : steps_; }

 private:
  const int64_t* values_ = nullptr;
  int64_t steps_;
};

// The items of a [B, C, T] batch of floats or halves, each with its own length.
class AnyBatch {
 public:
  AnyBatch(const Tensor& x, int64_t channels, const MaybeTensor& lengths)
      : x_(checked(x, channels)), lengths_(lengths, x.size(0), x.size(2)) {}

  int64_t items() const { return x_.size(0); }
  int64_t steps() const { return x_.size(2); }
  int64_t length(int64_t item) const { return lengths_[item]; }

  AnySource source(int64_t item) const {
    return x_.scalar_type() == scalar_type<Bf16> ? AnySource(typed<Bf16>(item)) : AnySource(typed<float>(item));
  }

 protected:
  template <class Element>
  SourceOf<Element> typed(int64_t item) const {
    return {elements<Element>(x_) + item * x_.stride(0), x_.stride(2), x_.stride(1), length(item),
            static_cast<int>(x_.size(1))};
  }

 private:
  static const Tensor& checked(const Tensor& x, int64_t channels) {
    if (x.scalar_type() != scalar_type<Bf16>) check_floats(x, "x");
    STD_TORCH_CHECK(x.is_cpu() && x.dim() == 3 && x.size(1) == channels, "x: expected [B, ", channels, ", T] on the CPU");
    return x;
  }

  Tensor x_;
  Lengths lengths_;
};

// The same of one type.
template <class Element>
class BatchOf : public AnyBatch {
 public:
  BatchOf(const Tensor& x, int64_t channels, const MaybeTensor& lengths) : AnyBatch(x, channels, lengths) {
    check_elements<Element>(x, "x");
  }

  SourceOf<Element> source(int64_t item) const { return typed<Element>(item); }
};

using Batch = BatchOf<float>;

// One item of a further input [B, C, T] of the output's shape.
template <class Element>
SourceOf<Element> source_of(const Tensor& t, int64_t item, int64_t steps, int channels) {
  return {elements<Element>(t) + item * t.stride(0), t.stride(2), t.stride(1), steps, channels};
}

// A new time-major output, seen as [B, C, T].
template <class Element>
class OutputOf {
 public:
  OutputOf(int64_t items, int channels, int64_t steps)
      : rows_(torch::stable::empty({items, steps, channels}, scalar_type<Element>)),
        data_(static_cast<Element*>(rows_.mutable_data_ptr())),
        channels_(channels),
        steps_(steps) {
    prefer_large_pages(data_, static_cast<std::size_t>(items * steps * channels) * sizeof(Element));
  }

  SinkOf<Element> sink(int64_t item) const { return {data_ + item * steps_ * channels_, channels_}; }

  // Zeros from step `valid` of an item on.
  void clear_tail(int64_t item, int64_t valid) const {
    std::fill(data_ + (item * steps_ + valid) * channels_, data_ + (item + 1) * steps_ * channels_, Element{});
  }

  Tensor tensor() const { return torch::stable::transpose(rows_, 1, 2); }

  // The same once zeros lie behind the steps(item) valid ones of every item.
  template <class Steps>
  Tensor tensor(const Steps& steps) const {
    for (int64_t i = 0; i < rows_.size(0); ++i) clear_tail(i, steps(i));
    return tensor();
  }

 private:
  Tensor rows_;
  Element* data_;
  int channels_;
  int64_t steps_;
};

using Output = OutputOf<float>;

// Calls work(item, begin, end) for ranges of output steps of every item on several threads. Ranges begin at multiples of
// `granule`; where never changes a result, so neither does their number.
template <class Steps, class Work>
void over_items(int64_t items, int64_t shortest, const Steps& steps, const Work& work, int64_t granule = 1) {
  int64_t longest = 0;
  for (int64_t i = 0; i < items; ++i) longest = std::max(longest, steps(i));
  const int64_t most = std::max<int64_t>(longest / shortest, 1), all = torch::stable::get_num_threads();
  const Grant grant(std::min(items * most, all), all);
  const int64_t threads = grant.count(), parts = std::min(most, items % threads ? threads : 1);
  fork_join(items * parts, threads, [&](int64_t task) {
    const int64_t item = task / parts, part = task % parts, total = steps(item);
    const auto cut = [&](int64_t p) { return p == parts ? total : total * p / parts / granule * granule; };
    const int64_t begin = cut(part), end = cut(part + 1);
    if (begin < end) work(item, begin, end);
  });
}

// A team of `parts` threads.
inline Team torch_team(int64_t parts) {
  return {static_cast<int>(parts), [](int count, void (*part)(const void*, int), const void* work) {
            fork_join(count, count, [&](int64_t i) { part(work, static_cast<int>(i)); });
          }};
}

// The same as over_items for work(item, begin, end, team), but where there are too few steps for the threads they share
// each item's output channels, `panels` of them, as a team; elsewhere the team is null.
template <class Steps, class Work>
void over_items_or_panels(int64_t items, int64_t shortest, const Steps& steps, int64_t panels, const Work& work,
                          int64_t granule = 1) {
  const int64_t threads = torch::stable::get_num_threads(), parts = std::min(threads, (panels + 1) / 2);
  int64_t longest = 0;
  for (int64_t i = 0; i < items; ++i) longest = std::max(longest, steps(i));
  if (parts < 2 || items * std::clamp<int64_t>(longest / shortest, 1, threads) >= threads) {
    over_items(
        items, shortest, steps, [&](int64_t item, int64_t begin, int64_t end) { work(item, begin, end, nullptr); }, granule);
    return;
  }
  const FlushDenormals flush;
  const Grant grant(parts, threads);
  const Team team = torch_team(grant.count());
  for (int64_t item = 0; item < items; ++item) {
    if (steps(item) > 0) work(item, 0, steps(item), &team);
  }
}

inline Pad as_pad(int pad) {
  STD_TORCH_CHECK(pad >= 0 && pad <= 2, "unknown padding ", pad);
  return static_cast<Pad>(pad);
}

inline int as_int(int64_t v) { return static_cast<int>(v); }

}  // namespace fastvoc
