// Argument checks on torch's stable tensors; each failure names the argument.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include "view.h"

namespace fastvoc {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline void check_like(const Tensor& t, const Tensor& x, const char* name) {
  STD_TORCH_CHECK(t.scalar_type() == x.scalar_type(), name, ": expected the dtype of x");
  STD_TORCH_CHECK(t.get_device_index() == x.get_device_index() && t.is_cuda() == x.is_cuda(), name,
                  ": expected the device of x");
}

// Packed weights: contiguous memory of a known number of elements, of x's dtype and device.
template <class T>
const T* packed(const Tensor& t, const Tensor& x, std::int64_t elements, const char* name) {
  check_like(t, x, name);
  STD_TORCH_CHECK(t.is_contiguous() && t.numel() == elements, name, ": expected ", elements,
                  " packed elements, got ", t.numel());
  return static_cast<const T*>(t.const_data_ptr());
}

template <class T>
View<const T> view(const Tensor& t, std::int64_t channels, const char* name) {
  STD_TORCH_CHECK(t.dim() == 3 && t.size(1) == channels, name, ": expected [B, ", channels, ", T]");
  return {static_cast<const T*>(t.const_data_ptr()), t.stride(0), t.stride(1), t.stride(2)};
}

// The valid steps of each item; the caller has checked their range.
inline const std::int64_t* item_lengths(const Tensor& lengths, const Tensor& x) {
  STD_TORCH_CHECK(lengths.scalar_type() == ScalarType::Long && lengths.is_contiguous() && lengths.numel() == x.size(0),
                  "lengths: expected ", x.size(0), " contiguous int64 values");
  STD_TORCH_CHECK(lengths.is_cuda() == x.is_cuda(), "lengths: expected the device of x");
  return lengths.const_data_ptr<std::int64_t>();
}

}  // namespace fastvoc
