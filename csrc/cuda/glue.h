// What the torch side of every op needs: checks, output tensors, the current stream. Waits for nothing.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/ops.h>

#include <optional>
#include <vector>

#include "common/calls.h"
#include "common/check.h"
#include "cuda/common.cuh"

namespace fastvoc {

// Makes a device the current one, of torch's runtime and of the one that is linked into this library.
class DeviceGuard {
 public:
  explicit DeviceGuard(std::int32_t index) : guard_(index) { cudaSetDevice(index); }

 private:
  torch::stable::accelerator::DeviceGuard guard_;
};

constexpr std::int64_t kMaxItems = 65535;  // of a grid's second axis

inline void check_input(const Tensor& x, const char* name = "x") {
  STD_TORCH_CHECK(x.is_cuda() && x.dim() == 3, name, ": expected a [B, C, T] tensor on a CUDA device");
  STD_TORCH_CHECK(x.size(0) <= kMaxItems, name, ": expected at most ", kMaxItems, " items, got ", x.size(0));
}

inline cuda::Stream current_stream(const Tensor& x) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(x.get_device_index(), &stream));
  return static_cast<cuda::Stream>(stream);
}

inline void check_launch() {
  const cudaError_t error = cudaGetLastError();
  STD_TORCH_CHECK(error == cudaSuccess, "CUDA: ", cudaGetErrorString(error));
}

inline const std::int64_t* maybe_lengths(const MaybeTensor& lengths, const Tensor& x) {
  return lengths ? item_lengths(*lengths, x) : nullptr;
}

// A contiguous tensor of `dtype` and this many elements on x's device.
template <class T>
const T* packed_as(const Tensor& t, const Tensor& x, ScalarType dtype, std::int64_t elements, const char* name) {
  STD_TORCH_CHECK(t.scalar_type() == dtype && t.is_cuda() && t.get_device_index() == x.get_device_index(), name,
                  ": wrong dtype or device");
  STD_TORCH_CHECK(t.is_contiguous() && t.numel() == elements, name, ": expected ", elements, " packed elements, got ",
                  t.numel());
  return static_cast<const T*>(t.const_data_ptr());
}

// A new time-major [B, T, C] tensor of x's dtype and device.
inline Tensor new_rows(const Tensor& x, std::int64_t channels, std::int64_t steps) {
  STD_TORCH_CHECK(steps > 0, "x: ", x.size(2), " steps are too few");
  return torch::stable::new_empty(x, {x.size(0), steps, channels});
}

template <class T>
View<T> rows_view(const Tensor& rows) {
  return {static_cast<T*>(rows.mutable_data_ptr()), rows.stride(0), 1, rows.stride(1)};
}

// Calls run(T{}) with the number type of x.
template <class Run>
void for_dtype(const Tensor& x, const Run& run) {
  switch (x.scalar_type()) {
    case ScalarType::Float:
      return run(float{});
    case ScalarType::Half:
      return run(cuda::Half{});
    case ScalarType::BFloat16:
      return run(cuda::BFloat16{});
    default:
      STD_TORCH_CHECK(false, "x: expected float32, float16 or bfloat16");
  }
}

// The activations of a call as fastvoc/ops/_cuda.py packs them; channels(i) are those of the i-th, with its padding.
template <class Given, class Channels>
std::vector<cuda::Act> activations(const Given& call, std::size_t count, const Channels& channels) {
  const Ints& kinds = call.kinds;
  const Doubles& slopes = call.slopes;
  STD_TORCH_CHECK(kinds.size() == count && slopes.size() == count, "activations: expected ", count,
                  " kinds and slopes");
  std::int64_t floats = 0;
  for (std::size_t i = 0; i < count; ++i) {
    STD_TORCH_CHECK(kinds[i] >= 0 && kinds[i] <= static_cast<std::int64_t>(cuda::ActKind::kSnake),
                    "activations: unknown kind ", kinds[i]);
    if (static_cast<cuda::ActKind>(kinds[i]) == cuda::ActKind::kSnake) floats += 2 * channels(i);
  }
  STD_TORCH_CHECK(floats == 0 || call.curves.has_value(), "activations: a snake needs its curves");
  const float* at = floats ? packed_as<float>(*call.curves, call.x, ScalarType::Float, floats, "curves") : nullptr;
  std::vector<cuda::Act> acts;
  for (std::size_t i = 0; i < count; ++i) {
    acts.push_back({static_cast<cuda::ActKind>(kinds[i]), static_cast<float>(slopes[i]), nullptr, nullptr});
    if (acts[i].kind != cuda::ActKind::kSnake) continue;
    acts[i].alpha = at;
    acts[i].inverse = at + channels(i);
    at += 2 * channels(i);
  }
  return acts;
}

// Weights for tensor cores are of 16-bit numbers.
template <class T>
void check_tiles(bool tiles) {
  STD_TORCH_CHECK(!tiles || sizeof(T) == 2, "CUDA: convolutions in tiles take float16 and bfloat16");
}

// The arguments that conv1d and upsample share, once their shape is set.
template <class T, class Args, class Given>
void set_common(Args& args, const Given& call) {
  args.x = view<T>(call.x, args.cin, "x");
  args.weight = packed<T>(call.weight, call.x, args.weights(), "weight");
  args.bias = packed<T>(call.bias, call.x, cuda::padded(args.cout), "bias");
  args.lengths = maybe_lengths(call.lengths, call.x);
  args.steps = call.x.size(2);
}

// A further input, when there is one, of x's items and this many steps.
template <class T>
View<const T> further(const MaybeTensor& t, const Tensor& x, std::int64_t channels, std::int64_t steps, const char* name) {
  if (!t) return {};
  check_like(*t, x, name);
  STD_TORCH_CHECK(t->size(0) == x.size(0) && t->size(2) == steps, name, ": expected ", x.size(0), " items of ", steps,
                  " steps");
  return view<T>(*t, channels, name);
}

}  // namespace fastvoc
