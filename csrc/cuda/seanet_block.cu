// Torch's view of seanet_block.
#include "cuda/seanet_block.cuh"

#include "cuda/glue.h"

namespace fastvoc {
namespace {

Tensor seanet_block(Tensor x, Tensor weight1, Tensor bias1, Tensor weight2, Tensor bias2, MaybeTensor shortcut,
                    MaybeTensor bias_shortcut, MaybeTensor norms, Doubles eps, MaybeTensor lengths, Ints shape,
                    Ints kinds, Doubles slopes, MaybeTensor curves) {
  check_input(x);
  STD_TORCH_CHECK(shape.size() == 11, "seanet_block: expected 11 shape values");
  const DeviceGuard guard(x.get_device_index());
  Tensor out;
  for_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    check_tiles<T>(shape[10]);
    cuda::SeanetArgs<T> args{};
    args.set(shape.data());
    STD_TORCH_CHECK(args.left + args.right == args.dilation * (args.kernel - 1), "seanet_block: expected the length kept");
    args.items = x.size(0);
    args.steps = x.size(2);
    args.x = view<T>(x, args.channels, "x");
    args.lengths = maybe_lengths(lengths, x);
    if (norms) {
      args.norms = norms->const_data_ptr<float>();  // norm_floats() asks whether there are any
      packed_as<float>(*norms, x, ScalarType::Float, args.norm_floats(), "norms");
      STD_TORCH_CHECK(static_cast<int>(eps.size()) == args.norm_count(), "eps: expected one for each norm");
      for (std::size_t i = 0; i < eps.size(); ++i) args.eps[i] = static_cast<float>(eps[i]);
    }
    args.weight1 = packed<T>(weight1, x, cuda::convolution_weights<T>(args.conv1().data()), "weight1");
    args.bias1 = packed<T>(bias1, x, cuda::padded(args.hidden), "bias1");
    const std::int64_t second = cuda::convolution_weights<T>(args.conv2().data(), args.further());
    args.weight2 = packed<T>(weight2, x, second, "weight2");
    args.bias2 = packed<T>(bias2, x, cuda::padded(args.out), "bias2");
    if (norms && !args.add_input) {
      STD_TORCH_CHECK(shortcut && bias_shortcut, "seanet_block: expected a shortcut");
      args.shortcut = packed<T>(*shortcut, x, cuda::convolution_weights<T>(args.beside().data()), "shortcut");
      args.bias_shortcut = packed<T>(*bias_shortcut, x, cuda::padded(args.out), "bias_shortcut");
    }
    const auto acts = activations(kinds, slopes, curves, x, 2, [&](std::size_t i) {
      return cuda::padded(i ? args.hidden : args.channels);
    });
    args.act1 = acts[0];
    args.act2 = acts[1];
    out = new_rows(x, args.out, args.steps);
    args.y = rows_view<T>(out);
    const Tensor scratch = torch::stable::new_empty(x, {args.scratch_size()});
    const Tensor pieces = torch::stable::new_empty(x, {norms ? args.pieces_size() : 0}, ScalarType::Float);
    args.scratch = static_cast<T*>(scratch.mutable_data_ptr());
    args.pieces = pieces.mutable_data_ptr<float>();
    cuda::seanet_block(args, current_stream(x));
  });
  check_launch();
  return torch::stable::transpose(out, 1, 2);
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CUDA, m) { m.impl("seanet_block", TORCH_BOX(&fastvoc::seanet_block)); }
