// The normalisation that layer_norm and convnext_block share, as torch gives it: one row for all, or one per item.
#pragma once

#include "glue.h"

namespace fastvoc {

class NormRows {
 public:
  NormRows(const Tensor& weight, const Tensor& bias, const MaybeTensor& row, int64_t items, int channels,
           double eps)
      : NormRows(packed(weight, weight.numel() / padded(channels) * padded(channels), "norm weight"),
                 packed(bias, weight.numel() / padded(channels) * padded(channels), "norm bias"),
                 weight.numel() / padded(channels), row, items, channels, eps) {}

  // The same from memory of so many rows.
  NormRows(const float* weight, const float* bias, int64_t rows, const MaybeTensor& row, int64_t items,
           int channels, double eps)
      : weight_(weight), bias_(bias), channels_(channels), eps_(static_cast<float>(eps)) {
    STD_TORCH_CHECK(rows > 0 && (row || rows == 1), "row: expected one per item for ", rows, " rows of weights");
    if (!row) return;
    STD_TORCH_CHECK(row->is_cpu() && row->scalar_type() == torch::headeronly::ScalarType::Long &&
                        row->is_contiguous() && row->numel() == items,
                    "row: expected ", items, " contiguous int64 values on the CPU");
    row_ = row->const_data_ptr<int64_t>();
    for (int64_t i = 0; i < items; ++i) {
      STD_TORCH_CHECK(row_[i] >= 0 && row_[i] < rows, "row: expected values in 0..", rows - 1);
    }
  }

  LayerNormArgs item(int64_t i) const {
    const int64_t at = row_ ? row_[i] * padded(channels_) : 0;
    return {weight_ + at, bias_ + at, channels_, eps_};
  }

 private:
  const float* weight_;
  const float* bias_;
  const int64_t* row_ = nullptr;
  int channels_;
  float eps_;
};

}  // namespace fastvoc
