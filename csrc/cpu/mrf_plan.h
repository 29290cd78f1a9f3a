// An mrf stage as torch hands it over, checked and laid out for the kernels.
#pragma once

#include "glue.h"

namespace fastvoc {

class MrfPlan {
 public:
  MrfPlan(int channels, const Tensor& weight, const Tensor& bias, const Ints& kernels, const Ints& dilations,
          const Ints& layers, int64_t depth, int64_t pad_mode, const Ints& kinds, const std::vector<double>& slopes,
          const std::optional<Tensor>& curves) {
    const int width = padded(channels);
    const std::size_t count = kernels.size();
    int64_t floats = 0, total = 0, longest = 0;
    for (int64_t k : kernels) floats += k * width * channels;
    for (int64_t n : layers) {
      total += n * depth;
      longest = std::max(longest, n * depth);
    }
    STD_TORCH_CHECK(count == dilations.size() && static_cast<int64_t>(count) == total && count > 0 &&
                        layers.size() <= kMaxBlocks && longest <= kMaxConvs,
                    "mrf: kernels, dilations and layers do not fit together");
    STD_TORCH_CHECK(pad_mode >= 0 && pad_mode <= 2, "mrf: pad_mode: expected 0..2, got ", pad_mode);
    const auto pad = static_cast<MrfPad>(pad_mode);
    const float* w = packed(weight, floats, "weight");
    const float* b = packed(bias, static_cast<int64_t>(count) * width, "bias");
    const auto acts = activations(kinds, slopes, curves, count, [&](std::size_t) { return channels; });
    convs_.resize(count);
    for (std::size_t i = 0; i < count; ++i) {
      const int kernel = as_int(kernels[i]), dilation = as_int(dilations[i]), all = (kernel - 1) * dilation;
      const int right = pad == MrfPad::kCausal ? 0 : all / 2;
      convs_[i] = {w, b, kernel, dilation, all - right, right, 0, 0, acts[i]};
      w += int64_t{1} * kernel * width * channels;
      b += width;
    }
    for (int64_t n : layers) {
      const int begin = begins_.back(), end = begin + as_int(n * depth);
      for (int i = end - 2; i >= begin; --i) {
        const auto j = static_cast<std::size_t>(i);
        convs_[j].back = convs_[j + 1].back + convs_[j + 1].left;
        convs_[j].ahead = convs_[j + 1].ahead + convs_[j + 1].right;
      }
      begins_.push_back(end);
    }
    args_ = {convs_.data(),  begins_.data(), as_int(static_cast<int64_t>(layers.size())),
             as_int(depth), channels,       pad == MrfPad::kReflect};
  }
  MrfPlan(const MrfPlan&) = delete;
  MrfPlan& operator=(const MrfPlan&) = delete;

  const MrfArgs& args() const { return args_; }

 private:
  std::vector<MrfConv> convs_;
  std::vector<int> begins_{0};
  MrfArgs args_{};
};

}  // namespace fastvoc
