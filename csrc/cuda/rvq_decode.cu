// Torch's view of rvq_decode.
#include "cuda/rvq_decode.cuh"

#include "cuda/glue.h"

namespace fastvoc {
namespace {

Tensor rvq_decode(const RvqDecodeCall& call) {
  const Tensor &codes = call.codes, &books = call.books;
  check_input(codes, "codes");
  const DeviceGuard guard(codes.get_device_index());
  STD_TORCH_CHECK(books.dim() == 3 && codes.size(1) <= books.size(0), "books: expected [K, N, D] with a book a code");
  Tensor out;
  for_dtype(books, [&](auto zero) {
    using T = decltype(zero);
    cuda::RvqDecodeArgs<T> args{};
    STD_TORCH_CHECK(codes.scalar_type() == ScalarType::Long, "codes: expected int64");
    args.codes = view<std::int64_t>(codes, codes.size(1), "codes");
    args.books = packed_as<T>(books, codes, books.scalar_type(), books.numel(), "books");
    args.lengths = maybe_lengths(call.lengths, codes);
    args.steps = codes.size(2);
    args.count = static_cast<int>(codes.size(1));
    args.entries = static_cast<int>(books.size(1));
    args.channels = static_cast<int>(books.size(2));
    out = torch::stable::new_empty(books, {codes.size(0), args.steps, args.channels});
    args.y = rows_view<T>(out);
    cuda::rvq_decode(args, codes.size(0), current_stream(codes));
  });
  check_launch();
  return torch::stable::transpose(out, 1, 2);
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CUDA, m) {
  m.impl("rvq_decode", fastvoc::boxed<fastvoc::RvqDecodeCall, fastvoc::rvq_decode>);
}
