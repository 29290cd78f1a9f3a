// Feeds csrc/coder what damaged files hold: as a libFuzzer target (-fsanitize=fuzzer), or with a `main` that makes its
// inputs itself, the same ones every time. Usage: coder_fuzz <rounds> <seed>
#include <cstdio>
#include <cstdlib>
#include <random>

#include "coder/arithmetic.h"
#include "coder/bits.h"
#include "coder/integer_lm.h"

namespace {

using namespace fastvoc::coder;

void expect(bool right, const char* what) {
  if (!right) {
    std::fprintf(stderr, "wrong: %s\n", what);
    std::abort();
  }
}

// Hands out the bytes of an input, zeros after its end.
class Input {
 public:
  explicit Input(std::span<const std::uint8_t> data) : data_(data) {}
  std::uint32_t byte() { return at_ < data_.size() ? data_[at_++] : 0; }
  std::uint32_t word() { return byte() | byte() << 8 | byte() << 16 | byte() << 24; }
  std::span<const std::uint8_t> rest() const { return data_.subspan(at_); }

 private:
  std::span<const std::uint8_t> data_;
  std::size_t at_ = 0;
};

void fuzz_packing(Input in) {
  const int width = 1 + static_cast<int>(in.byte() % 16);
  const auto data = in.rest();
  std::vector<std::uint16_t> codes(data.size() * 8 / width);
  unpack(data, width, codes);
  std::vector<std::uint8_t> again(packed_size(codes.size(), width));
  pack(codes, width, again);
  const std::size_t whole = codes.size() * width / 8;
  for (std::size_t i = 0; i < whole; ++i) expect(again[i] == data[i], "packing");
}

// Cumulative frequencies of up to 64 symbols; `sound` ones, or any numbers.
std::vector<std::uint32_t> table(Input& in, bool sound) {
  std::vector<std::uint32_t> cdf(1 + in.byte() % 64);
  if (!sound) {
    for (auto& end : cdf) end = in.word();
    return cdf;
  }
  const std::uint32_t spare = static_cast<std::uint32_t>(kTotal) - 2 * static_cast<std::uint32_t>(cdf.size());
  std::uint32_t end = 0, left = spare;
  for (auto& value : cdf) {
    const std::uint32_t share = left == 0 ? 0 : in.word() % (left + 1) >> in.byte() % 24;
    left -= share;
    value = end += share + 2;
  }
  if (in.byte() & 1) cdf.back() += left;
  return cdf;
}

void fuzz_decoder(Input in) {
  const bool sound = in.byte() & 1;
  std::vector<std::vector<std::uint32_t>> tables;
  for (std::uint32_t i = in.byte() % 4 + 1; i > 0; --i) tables.push_back(table(in, sound));
  const auto data = in.rest();
  Decoder decoder;
  std::size_t at = 0;
  try {
    for (int i = 0; i < 400; ++i) {
      const auto window = data.subspan(at, std::min<std::size_t>(data.size() - at, 4));
      decoder.enter(window);
      const auto& cdf = tables[static_cast<std::size_t>(i) % tables.size()];
      expect(decoder.pull(cdf) < cdf.size(), "symbol");
      expect(decoder.used() <= window.size(), "used");
      at += decoder.used();
    }
  } catch (const std::runtime_error&) {
  } catch (const std::invalid_argument&) {
    expect(!sound, "sound table");
  }
}

void fuzz_round_trip(Input in) {
  std::vector<std::vector<std::uint32_t>> tables;
  for (std::uint32_t i = in.byte() % 4 + 1; i > 0; --i) tables.push_back(table(in, true));
  const auto data = in.rest();
  Encoder encoder;
  std::vector<std::uint8_t> code;
  const auto append = [&code](const std::vector<std::uint8_t>& part) { code.insert(code.end(), part.begin(), part.end()); };
  for (std::size_t i = 0; i < data.size(); ++i) {
    const auto& cdf = tables[i % tables.size()];
    encoder.push(data[i] % cdf.size(), cdf);
    append(encoder.take());
  }
  append(encoder.finish());
  Decoder decoder;
  decoder.enter(code);
  for (std::size_t i = 0; i < data.size(); ++i) {
    const auto& cdf = tables[i % tables.size()];
    expect(decoder.pull(cdf) == data[i] % cdf.size(), "round trip");
  }
  expect(decoder.used() == code.size(), "size of the code");
}

Matrix matrix(Input& in, std::mt19937& random, std::size_t rows, std::size_t cols, bool bias) {
  Matrix m{rows, cols, static_cast<int>(20 + in.byte() % 43), {}, {}, {}};
  for (std::size_t i = 0; i < rows * cols; ++i) m.weights.push_back(static_cast<std::int8_t>(random() % 255 - 127));
  const int shift = static_cast<int>(in.byte() % 31);
  for (std::size_t i = 0; i < rows; ++i) m.multiplier.push_back(static_cast<std::int32_t>((random() >> 1) >> shift));
  const auto wide = [&] { return static_cast<std::int32_t>(random() % 0x7fffffff) - 0x3fffffff; };
  for (std::size_t i = 0; bias && i < rows; ++i) m.bias.push_back(wide() >> shift);
  return m;
}

Norm norm(Input& in, std::mt19937& random, std::size_t dim) {
  Norm n;
  const int shift = static_cast<int>(in.byte() % 31);
  for (auto* values : {&n.weight, &n.bias}) {
    for (std::size_t i = 0; i < dim; ++i) {
      values->push_back((static_cast<std::int32_t>(random() % 0x7fffffff) - 0x3fffffff) >> shift);
    }
  }
  return n;
}

// The most extreme weights that `check` admits must not overflow anything.
void fuzz_language_model(Input in) {
  std::mt19937 random(in.word());
  Weights w;
  w.heads = 1 + in.byte() % 3;
  const std::size_t dim = w.heads * 2 * (1 + in.byte() % 9) + (w.heads == 1 ? 2 : 0), hidden = 1 + in.byte() % 40;
  w.past = 1 + in.byte() % 6;
  w.norm_in = norm(in, random, dim);
  for (std::uint32_t i = in.byte() % 3; i > 0; --i) {
    w.layers.push_back({matrix(in, random, 3 * dim, dim, true), matrix(in, random, dim, dim, true),
                        matrix(in, random, hidden, dim, true), matrix(in, random, dim, hidden, true),
                        norm(in, random, dim), norm(in, random, dim)});
  }
  const std::size_t symbols = 2 + in.byte() % 30, books = 1 + in.byte() % 3;
  for (std::size_t k = 0; k < books; ++k) {
    w.embeddings.push_back(matrix(in, random, symbols + 1, dim, false));
    w.outputs.push_back(matrix(in, random, symbols, dim, true));
  }
  for (int i = 0; i <= 256; ++i) w.tables.exp2.push_back(static_cast<std::int32_t>((1 << 30) - i * (1 << 21)));
  for (int i = 0; i <= 2048; ++i) w.tables.gelu.push_back(static_cast<std::int32_t>(random() % (1 << 20)) - (8 << 16));
  for (int i = 0; i <= 4096; ++i) w.tables.cosine.push_back(static_cast<std::int32_t>(random() % (1 << 17)) - (1 << 16));
  for (std::size_t i = 0; i < dim / 2; ++i) w.tables.turns.push_back(std::uint64_t{random()} << 32 | random());
  check(w);
  State state(w);
  std::vector<std::int32_t> tokens(books);
  std::vector<std::uint32_t> cdf(books * symbols);
  for (int t = 0; t < 10; ++t) {
    for (auto& token : tokens) token = static_cast<std::int32_t>(in.byte() % (symbols + 1));
    state.step(tokens, cdf);
    for (std::size_t i = 0; i < cdf.size(); ++i) {
      const std::uint32_t before = i % symbols == 0 ? 0 : cdf[i - 1];
      expect(cdf[i] >= before + 2 && cdf[i] <= kTotal, "cumulative frequencies");
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const Input in({data + 1, size - 1});
  switch (data[0] % 16) {
    case 0:
      fuzz_language_model(in);
      break;
    case 1:
    case 2:
      fuzz_packing(in);
      break;
    case 3:
    case 4:
    case 5:
    case 6:
    case 7:
      fuzz_round_trip(in);
      break;
    default:
      fuzz_decoder(in);
  }
  return 0;
}

#ifndef FASTVOC_LIBFUZZER
int main(int, char** arguments) {
  std::mt19937 random(static_cast<unsigned>(std::atoi(arguments[2])));
  std::vector<std::uint8_t> data;
  for (long round = std::atol(arguments[1]); round > 0; --round) {
    // Half of the inputs are changed copies of the last one.
    if (round % 2 || data.empty()) {
      data.assign(random() % 400, 0);
      for (auto& byte : data) byte = static_cast<std::uint8_t>(random() >> 7);
    } else {
      for (unsigned i = random() % 8; i > 0; --i) data[random() % data.size()] ^= 1u << random() % 8;
      if (random() % 4 == 0) data.resize(random() % 400, 0xff);
    }
    LLVMFuzzerTestOneInput(data.data(), data.size());
  }
  std::puts("done");
}
#endif
