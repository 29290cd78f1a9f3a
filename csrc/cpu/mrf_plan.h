// An mrf stage as torch hands it over, checked and laid out for the kernels.
#pragma once

#include <numeric>

#include "glue.h"

namespace fastvoc {

class MrfPlan {
 public:
  explicit MrfPlan(const MrfPacked& stage) : stage_(stage) {
    const Ints &kernels = stage.kernels, &dilations = stage.dilations, &schemes = stage.schemes, &layers = stage.layers;
    const int channels = stage.channels, depth = stage.depth;
    const std::size_t count = kernels.size();
    int64_t total = 0, longest = 0;
    for (int64_t n : layers) {
      total += n * depth;
      longest = std::max(longest, n * depth);
    }
    STD_TORCH_CHECK(count == dilations.size() && count == schemes.size() && static_cast<int64_t>(count) == total &&
                        count > 0 && layers.size() <= kMaxBlocks && longest <= kMaxConvs,
                    "mrf: kernels, dilations, schemes and layers do not fit together");
    STD_TORCH_CHECK(stage.pad >= 0 && stage.pad <= 2, "mrf: pad: expected 0..2, got ", stage.pad);
    const auto pad = static_cast<MrfPad>(stage.pad);
    const auto acts = activations(stage, count, [&](std::size_t) { return channels; });
    convs_.resize(count);
    for (std::size_t i = 0; i < count; ++i) {
      STD_TORCH_CHECK(schemes[i] >= 0 && schemes[i] <= static_cast<int64_t>(Scheme::kDepthwise), "mrf: unknown scheme ",
                      schemes[i]);
      const ToomCook shape{static_cast<Scheme>(schemes[i]), as_int(kernels[i]), as_int(dilations[i])};
      const int all = (shape.kernel - 1) * shape.dilation, right = pad == MrfPad::kCausal ? 0 : all / 2;
      convs_[i] = {shape, all - right, right, 0, 0, acts[i]};
      const bool ends = i % static_cast<std::size_t>(depth) == static_cast<std::size_t>(depth) - 1;
      STD_TORCH_CHECK(!convs_[i].depthwise() || !ends, "mrf: a depthwise convolution ends no layer");
    }
    int granule = 1;
    for (int64_t n : layers) {
      const int begin = begins_.back(), end = begin + as_int(n * depth);
      for (int i = end - 2; i >= begin; --i) {
        const auto j = static_cast<std::size_t>(i);
        convs_[j].back = convs_[j + 1].back + convs_[j + 1].left;
        convs_[j].ahead = convs_[j + 1].ahead + convs_[j + 1].right;
      }
      begins_.push_back(end);
      granule = std::lcm(granule, convs_[static_cast<std::size_t>(end - 1)].block());
    }
    STD_TORCH_CHECK(granule <= kMaxGranule, "mrf: the last convolutions' tiles do not fit together");
    args_ = {convs_.data(),  begins_.data(), as_int(static_cast<int64_t>(layers.size())),
             depth,         channels,       pad == MrfPad::kReflect,
             granule};
  }
  MrfPlan(const MrfPlan&) = delete;
  MrfPlan& operator=(const MrfPlan&) = delete;

  const MrfArgs& args() const { return args_; }

  // The weights of the convolutions in order.
  template <class Element>
  std::vector<Filter<Element>> filters() const {
    const int width = padded(args_.channels), half = kPanelWidth / 2;
    const auto weights = [&](const MrfConv& conv) {
      if (conv.depthwise()) return int64_t{1} * conv.shape.kernel * width;
      const int taps = conv.direct() ? conv.shape.kernel : conv.shape.taps();
      return int64_t{1} * taps * (args_.width() == half ? half * half : width * grouped<Element>(args_.channels));
    };
    int64_t total = 0;
    for (const MrfConv& conv : convs_) {
      const Scheme scheme = conv.shape.scheme;
      constexpr bool integers = std::is_same_v<Element, std::uint8_t>;
      const bool known = !integers && scheme != (std::is_same_v<Element, Bf16> ? Scheme::kF63 : Scheme::kF33);
      STD_TORCH_CHECK(scheme == Scheme::kDirect || args_.width() >= kPanelWidth,
                      "mrf: half a panel takes direct convolutions only");
      STD_TORCH_CHECK(scheme == Scheme::kDirect || known, "mrf: no such scheme for ",
                      scalar_name<typename Numbers<Element>::Weight>());
      total += weights(conv);
    }
    Filters<Element> all(stage_.weight, total, stage_.bias, static_cast<int64_t>(convs_.size()), width);
    std::vector<Filter<Element>> filters;
    for (const MrfConv& conv : convs_) filters.push_back(all.next(weights(conv)));
    return filters;
  }

 private:
  const MrfPacked& stage_;
  std::vector<MrfConv> convs_;
  std::vector<int> begins_{0};
  MrfArgs args_{};
};

}  // namespace fastvoc
