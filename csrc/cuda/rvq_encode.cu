// Torch's view of rvq_encode.
#include "cuda/rvq_encode.cuh"

#include "cuda/glue.h"

namespace fastvoc {
namespace {

Tensor rvq_encode(const RvqEncodeCall& call) {
  const Tensor &x = call.x, &books = call.books;
  const std::int64_t count = call.n_q;
  check_input(x);
  STD_TORCH_CHECK(x.scalar_type() == ScalarType::Float, "x: expected float32");
  STD_TORCH_CHECK(books.dim() == 3 && count >= 1 && count <= books.size(0), "books: expected [K, N, D] with a book a code");
  const DeviceGuard guard(x.get_device_index());
  const std::int64_t channels = books.size(2), rows = books.size(0) * cuda::padded(books.size(1));
  cuda::RvqEncodeArgs<float> args{};
  args.x = view<float>(x, channels, "x");
  args.books = packed<float>(books, x, books.numel(), "books");
  args.panels = packed<float>(call.panels, x, rows * channels, "panels");
  args.squares = packed<float>(call.squares, x, rows, "squares");
  args.lengths = maybe_lengths(call.lengths, x);
  args.steps = x.size(2);
  args.count = call.n_q;
  args.entries = static_cast<int>(books.size(1));
  args.channels = static_cast<int>(channels);
  STD_TORCH_CHECK(args.shared() <= cuda::shared_limit(), "rvq_encode: ", channels, " channels are too many");
  const Tensor out = torch::stable::new_empty(x, {x.size(0), count, args.steps}, ScalarType::Long);
  args.codes = out.mutable_data_ptr<std::int64_t>();
  cuda::rvq_encode(args, x.size(0), current_stream(x));
  check_launch();
  return out;
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CUDA, m) {
  m.impl("rvq_encode", fastvoc::boxed<fastvoc::RvqEncodeCall, fastvoc::rvq_encode>);
}
