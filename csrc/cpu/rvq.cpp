// Torch's view of rvq_encode and rvq_decode.
#include "glue.h"

namespace fastvoc {
namespace {

RvqArgs read_books(const Tensor& books) {
  STD_TORCH_CHECK(books.dim() == 3 && books.numel() > 0, "books: expected [K, N, D]");
  return {packed(books, books.numel(), "books"), nullptr, nullptr, 0, as_int(books.size(1)), as_int(books.size(2))};
}

Tensor rvq_encode(const RvqEncodeCall& call) {
  RvqArgs args = read_books(call.books);
  const int64_t count = call.n_q, books = call.books.size(0), rows = books * padded(args.entries);
  STD_TORCH_CHECK(count >= 1 && count <= books, "n_q: expected 1..", books, ", got ", count);
  args.panels = packed(call.panels, rows * args.channels, "panels");
  args.squares = packed(call.squares, rows, "squares");
  args.count = call.n_q;
  const Batch batch(call.x, args.channels, call.lengths);
  const int64_t steps = batch.steps();
  Tensor out = torch::stable::empty({batch.items(), count, steps}, torch::headeronly::ScalarType::Long);
  int64_t* const data = out.mutable_data_ptr<int64_t>();
  const FloatKernels& table = engine().only_floats;
  const auto valid = [&](int64_t item) { return batch.length(item); };
  const auto work = [&](int64_t item, int64_t begin, int64_t end, const Team* team) {
    RvqArgs mine = args;
    mine.team = team;
    float* memory = Arena::mine().floats(static_cast<std::size_t>(workspace_floats(mine, end - begin)));
    table.rvq_encode(mine, batch.source(item), {data + item * count * steps, 1, steps}, begin, end, memory);
  };
  over_items_or_panels(batch.items(), 24, valid, padded(args.entries) / kPanelWidth, work);
  for (int64_t row = 0; row < batch.items() * count; ++row) {
    std::fill(data + row * steps + valid(row / count), data + (row + 1) * steps, 0);
  }
  return out;
}

Tensor rvq_decode(const RvqDecodeCall& call) {
  const Tensor &codes = call.codes, &books = call.books;
  RvqArgs args = read_books(books);
  STD_TORCH_CHECK(codes.is_cpu() && codes.scalar_type() == torch::headeronly::ScalarType::Long && codes.dim() == 3 &&
                      codes.size(1) >= 1 && codes.size(1) <= books.size(0),
                  "codes: expected int64 [B, 1..", books.size(0), ", T] on the CPU");
  args.count = as_int(codes.size(1));
  const Lengths valid(call.lengths, codes.size(0), codes.size(2));
  const int64_t* const data = codes.const_data_ptr<int64_t>();
  const auto source = [&](int64_t item) {
    return Codes<const int64_t>{data + item * codes.stride(0), codes.stride(2), codes.stride(1)};
  };
  for (int64_t item = 0; item < codes.size(0); ++item) {
    const Codes<const int64_t> at = source(item);
    for (int64_t k = 0; k < args.count; ++k) {
      for (int64_t t = 0; t < valid[item]; ++t) {
        const int64_t code = at.data[t * at.step + k * at.book];
        STD_TORCH_CHECK(code >= 0 && code < args.entries, "codes: expected values in 0..", args.entries - 1, ", got ", code);
      }
    }
  }
  const Output out(codes.size(0), args.channels, codes.size(2));
  const FloatKernels& table = engine().only_floats;
  over_items(codes.size(0), 24, [&](int64_t item) { return valid[item]; }, [&](int64_t item, int64_t begin, int64_t end) {
    table.rvq_decode(args, source(item), out.sink(item), begin, end);
  });
  return out.tensor([&](int64_t item) { return valid[item]; });
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CPU, m) {
  m.impl("rvq_encode", fastvoc::boxed<fastvoc::RvqEncodeCall, fastvoc::rvq_encode>);
  m.impl("rvq_decode", fastvoc::boxed<fastvoc::RvqDecodeCall, fastvoc::rvq_decode>);
}
