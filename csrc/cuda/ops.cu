// Torch's view of the CUDA kernels: checks, output tensors, the current stream.
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <optional>
#include <vector>

#include "common/check.h"
#include "cuda/conv1d.cuh"
#include "cuda/mrf.cuh"
#include "cuda/upsample.cuh"

namespace fastvoc {
namespace {

using Ints = std::vector<std::int64_t>;
using MaybeTensor = std::optional<Tensor>;

constexpr std::int64_t kLeaky = 0, kTanh = 1;  // the numbers of fastvoc/packing.py
constexpr std::int64_t kMaxItems = 65535;  // of a grid's second axis

void check_input(const Tensor& x) {
  STD_TORCH_CHECK(x.is_cuda() && x.dim() == 3, "x: expected a [B, C, T] tensor on a CUDA device");
  STD_TORCH_CHECK(x.size(0) <= kMaxItems, "x: expected at most ", kMaxItems, " items, got ", x.size(0));
}

cuda::Stream current_stream(const Tensor& x) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(x.get_device_index(), &stream));
  return static_cast<cuda::Stream>(stream);
}

void check_launch() {
  const cudaError_t error = cudaGetLastError();
  STD_TORCH_CHECK(error == cudaSuccess, "CUDA: ", cudaGetErrorString(error));
}

const std::int64_t* maybe_lengths(const MaybeTensor& lengths, const Tensor& x) {
  return lengths ? item_lengths(*lengths, x) : nullptr;
}

// A new time-major [B, T, C] tensor of x's dtype and device.
Tensor new_rows(const Tensor& x, std::int64_t channels, std::int64_t steps) {
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

// The slope of a leaky ReLU, 1 for a tanh.
double slope_of(std::int64_t kind, double slope, bool tanh) {
  STD_TORCH_CHECK(kind == kLeaky || (tanh && kind == kTanh), "CUDA: cannot fuse activation ", kind);
  return kind == kLeaky ? slope : 1.0;
}

Tensor conv1d(Tensor x, Tensor weight, Tensor bias, MaybeTensor residual, MaybeTensor lengths, Ints shape,
              Ints kinds, std::vector<double> slopes, MaybeTensor) {
  STD_TORCH_CHECK(shape.size() == 8 && slopes.size() == 2 && kinds.size() == 2,
                  "conv1d: expected 8 shape values and 2 activations");
  STD_TORCH_CHECK(shape[7] == 0 || shape[7] == 1, "CUDA: pads with zeros or by reflection");
  const double leaks[] = {slope_of(kinds[0], slopes[0], false), slope_of(kinds[1], slopes[1], true)};
  check_input(x);
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  Tensor out;
  for_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    auto args = cuda::conv1d_args<T>(shape.data(), leaks, kinds[1] == kTanh);
    args.x = view<T>(x, args.cin, "x");
    args.weight = packed<T>(weight, x, args.weights(), "weight");
    args.bias = packed<T>(bias, x, cuda::padded(args.cout), "bias");
    args.lengths = maybe_lengths(lengths, x);
    args.steps = x.size(2);
    if (residual) {
      check_like(*residual, x, "residual");
      args.residual = view<T>(*residual, args.cout, "residual");
      STD_TORCH_CHECK(residual->size(0) == x.size(0) && residual->size(2) == args.made(args.steps),
                      "residual: expected the shape of the output");
    }
    out = new_rows(x, args.cout, args.made(args.steps));
    args.y = rows_view<T>(out);
    cuda::conv1d(args, x.size(0), current_stream(x));
  });
  check_launch();
  return torch::stable::transpose(out, 1, 2);
}

Tensor upsample(Tensor x, Tensor weight, Tensor bias, MaybeTensor lengths, Ints shape, Ints kinds,
                std::vector<double> slopes, MaybeTensor) {
  STD_TORCH_CHECK(shape.size() == 6 && kinds.size() == 1 && slopes.size() == 1,
                  "upsample: expected 6 shape values and an activation");
  const double leak = slope_of(kinds[0], slopes[0], false);
  check_input(x);
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  STD_TORCH_CHECK(shape[4] >= 0, "upsample: the left crop must not be negative");
  Tensor out;
  for_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    auto args = cuda::upsample_args<T>(shape.data(), leak);
    args.x = view<T>(x, args.cin, "x");
    args.weight = packed<T>(weight, x, args.weights(), "weight");
    args.bias = packed<T>(bias, x, cuda::padded(args.cout), "bias");
    args.lengths = maybe_lengths(lengths, x);
    args.steps = x.size(2);
    out = new_rows(x, args.cout, args.made(args.steps));
    args.y = rows_view<T>(out);
    cuda::upsample(args, x.size(0), current_stream(x));
  });
  check_launch();
  return torch::stable::transpose(out, 1, 2);
}

Tensor mrf(Tensor x, Tensor weight, Tensor bias, MaybeTensor lengths, Ints kernels, Ints dilations, Ints schemes,
           Ints layers, std::int64_t depth, std::int64_t pad_mode, Ints kinds, std::vector<double> slopes, MaybeTensor) {
  check_input(x);
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  const std::int64_t items = x.size(0), channels = x.size(1), steps = x.size(2), width = cuda::padded(channels);
  std::int64_t taps = 0, convs = 0;
  for (std::int64_t k : kernels) taps += k;
  for (std::int64_t n : layers) {
    STD_TORCH_CHECK(n > 0, "mrf: layers: expected one or more in every block, got ", n);
    convs += n * depth;
  }
  const auto count = static_cast<std::int64_t>(kernels.size());
  STD_TORCH_CHECK(count == convs && kernels.size() == dilations.size() && count > 0 && (depth == 1 || depth == 2),
                  "mrf: kernels, dilations and layers do not fit together");
  STD_TORCH_CHECK(pad_mode == 0 || pad_mode == 1, "CUDA: mrf pads with zeros or by reflection, on either side");
  STD_TORCH_CHECK(schemes == Ints(kernels.size(), 0), "CUDA: mrf convolves directly");
  STD_TORCH_CHECK(kinds == Ints(kernels.size(), kLeaky) && slopes == std::vector<double>(kernels.size(), slopes.at(0)),
                  "CUDA: mrf wants one leaky ReLU for all convolutions");
  const Tensor out = new_rows(x, channels, steps);
  const Tensor scratch = torch::stable::new_empty(x, {cuda::mrf_scratch(items, channels, steps)}, ScalarType::Float);
  for_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    cuda::mrf(cuda::MrfArgs<T>{view<T>(x, channels, "x"), rows_view<T>(out),
                               packed<T>(weight, x, taps * width * channels, "weight"),
                               packed<T>(bias, x, count * width, "bias"), maybe_lengths(lengths, x),
                               scratch.mutable_data_ptr<float>(), kernels, dilations, layers, depth, items, steps,
                               static_cast<int>(channels), static_cast<float>(slopes[0]), pad_mode == 1},
              current_stream(x));
  });
  check_launch();
  return torch::stable::transpose(out, 1, 2);
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CUDA, m) {
  m.impl("conv1d", TORCH_BOX(&fastvoc::conv1d));
  m.impl("upsample", TORCH_BOX(&fastvoc::upsample));
  m.impl("mrf", TORCH_BOX(&fastvoc::mrf));
}
