// Stands in for torch's stable tensor: memory on the CPU, its own or lent, sizes and strides.
#pragma once

#include <cstddef>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

namespace stand_in {

inline bool cuda = false;  // whether tensors say that they lie on a CUDA device

}  // namespace stand_in

namespace torch::stable {

inline std::size_t bytes_of(headeronly::ScalarType type) {
  using headeronly::ScalarType;
  switch (type) {
    case ScalarType::Byte:
    case ScalarType::Char:
      return 1;
    case ScalarType::Short:
    case ScalarType::Half:
    case ScalarType::BFloat16:
      return 2;
    case ScalarType::Int:
    case ScalarType::Float:
      return 4;
    default:
      return 8;
  }
}

class Tensor {
 public:
  Tensor() = default;

  Tensor(void* lent, std::vector<std::int64_t> sizes, std::vector<std::int64_t> strides, headeronly::ScalarType type)
      : memory_(static_cast<std::byte*>(lent), [](std::byte*) {}),
        sizes_(std::move(sizes)),
        strides_(std::move(strides)),
        type_(type) {}

  Tensor(std::vector<std::int64_t> sizes, headeronly::ScalarType type) : sizes_(std::move(sizes)), type_(type) {
    strides_.resize(sizes_.size());
    std::int64_t step = 1;
    for (std::size_t i = sizes_.size(); i-- > 0; step *= sizes_[i]) strides_[i] = step;
    const std::size_t size = static_cast<std::size_t>(numel()) * bytes_of(type_);
    memory_.reset(static_cast<std::byte*>(::operator new(size + 1, kAlignment)),
                  [](std::byte* data) { ::operator delete(data, kAlignment); });
  }

  bool is_cpu() const { return !stand_in::cuda; }
  bool is_cuda() const { return stand_in::cuda; }
  std::int32_t get_device_index() const { return stand_in::cuda ? 0 : -1; }
  headeronly::ScalarType scalar_type() const { return type_; }
  std::size_t element_size() const { return bytes_of(type_); }
  std::int64_t dim() const { return static_cast<std::int64_t>(sizes_.size()); }
  std::int64_t size(std::int64_t i) const { return sizes_.at(static_cast<std::size_t>(i)); }
  std::int64_t stride(std::int64_t i) const { return strides_.at(static_cast<std::size_t>(i)); }

  std::int64_t numel() const {
    std::int64_t count = 1;
    for (const std::int64_t size : sizes_) count *= size;
    return count;
  }

  bool is_contiguous() const {
    std::int64_t step = 1;
    for (std::size_t i = sizes_.size(); i-- > 0; step *= sizes_[i]) {
      if (sizes_[i] != 1 && strides_[i] != step) return false;
    }
    return true;
  }

  const void* const_data_ptr() const { return memory_.get(); }
  void* mutable_data_ptr() const { return memory_.get(); }
  template <class T>
  const T* const_data_ptr() const {
    return reinterpret_cast<const T*>(memory_.get());
  }
  template <class T>
  T* mutable_data_ptr() const {
    return reinterpret_cast<T*>(memory_.get());
  }

  Tensor transposed(std::size_t a, std::size_t b) const {
    Tensor view = *this;
    std::swap(view.sizes_.at(a), view.sizes_.at(b));
    std::swap(view.strides_.at(a), view.strides_.at(b));
    return view;
  }

  // The tensor whose dimension order[i] is this one's dimension i.
  Tensor reordered(const std::vector<std::int64_t>& order) const {
    Tensor view = *this;
    for (std::size_t i = 0; i < order.size(); ++i) {
      view.sizes_.at(static_cast<std::size_t>(order[i])) = sizes_[i];
      view.strides_.at(static_cast<std::size_t>(order[i])) = strides_[i];
    }
    return view;
  }

 private:
  static constexpr std::align_val_t kAlignment{64};

  std::shared_ptr<std::byte> memory_;
  std::vector<std::int64_t> sizes_, strides_;
  headeronly::ScalarType type_ = headeronly::ScalarType::Float;
};

}  // namespace torch::stable
