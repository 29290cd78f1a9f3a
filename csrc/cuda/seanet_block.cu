// Torch's view of seanet_block.
#include "cuda/seanet_block.cuh"

#include "cuda/glue.h"

namespace fastvoc {
namespace {

Tensor seanet_block(const SeanetBlockCall& call) {
  const Tensor& x = call.x;
  const MaybeTensor& norms = call.norms;
  check_input(x);
  STD_TORCH_CHECK(call.left + call.right == call.dilation * (call.kernel - 1) && call.shift == 0,
                  "seanet_block: expected the length kept");
  const DeviceGuard guard(x.get_device_index());
  Tensor out;
  for_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    check_tiles<T>(call.tiles);
    cuda::SeanetArgs<T> args{};
    args.channels = call.channels;
    args.hidden = call.hidden;
    args.out = call.out;
    args.kernel = call.kernel;
    args.dilation = call.dilation;
    args.left = call.left;
    args.right = call.right;
    args.pad = call.pad;
    args.add_input = call.identity;
    args.tiles = call.tiles;
    args.items = x.size(0);
    args.steps = x.size(2);
    args.x = view<T>(x, args.channels, "x");
    args.lengths = maybe_lengths(call.lengths, x);
    if (norms) {
      args.norms = norms->const_data_ptr<float>();  // norm_floats() asks whether there are any
      packed_as<float>(*norms, x, ScalarType::Float, args.norm_floats(), "norms");
      STD_TORCH_CHECK(static_cast<int>(call.eps.size()) == args.norm_count(), "eps: expected one for each norm");
      for (std::size_t i = 0; i < call.eps.size(); ++i) args.eps[i] = static_cast<float>(call.eps[i]);
    }
    args.weight1 = packed<T>(call.weight1, x, cuda::convolution_weights<T>(args.conv1()), "weight1");
    args.bias1 = packed<T>(call.bias1, x, cuda::padded(args.hidden), "bias1");
    args.weight2 = packed<T>(call.weight2, x, cuda::convolution_weights<T>(args.conv2(), args.further()), "weight2");
    args.bias2 = packed<T>(call.bias2, x, cuda::padded(args.out), "bias2");
    if (norms && !args.add_input) {
      STD_TORCH_CHECK(call.shortcut && call.bias_shortcut, "seanet_block: expected a shortcut");
      args.shortcut = packed<T>(*call.shortcut, x, cuda::convolution_weights<T>(args.beside()), "shortcut");
      args.bias_shortcut = packed<T>(*call.bias_shortcut, x, cuda::padded(args.out), "bias_shortcut");
    }
    const auto acts = activations(call, 2, [&](std::size_t i) { return cuda::padded(i ? args.hidden : args.channels); });
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

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CUDA, m) {
  m.impl("seanet_block", fastvoc::boxed<fastvoc::SeanetBlockCall, fastvoc::seanet_block>);
}
