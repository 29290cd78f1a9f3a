// Runs the coder on a file: codes to pack, a model with the tokens that it steps through, codes to write and read back.
#include <cstdio>
#include <exception>
#include <stdexcept>

#include "arithmetic.h"
#include "integer_lm.h"

using namespace fastvoc::coder;

namespace {

class Files {
 public:
  Files(const char* in, const char* out) : in_(std::fopen(in, "rb")), out_(std::fopen(out, "wb")) {
    if (!in_ || !out_) throw std::runtime_error("cannot open the files");
  }
  ~Files() {
    if (in_) std::fclose(in_);
    if (out_) std::fclose(out_);
  }
  Files(const Files&) = delete;

  template <class T>
  std::vector<T> list() {
    std::int64_t count = 0;
    if (std::fread(&count, sizeof count, 1, in_) != 1) throw std::runtime_error("the file ends early");
    std::vector<T> values(static_cast<std::size_t>(count));
    if (std::fread(values.data(), sizeof(T), values.size(), in_) != values.size()) throw std::runtime_error("short");
    return values;
  }

  std::size_t number() { return static_cast<std::size_t>(list<std::int64_t>().at(0)); }

  template <class T>
  void write(const std::vector<T>& values) {
    if (std::fwrite(values.data(), sizeof(T), values.size(), out_) != values.size()) throw std::runtime_error("full");
  }

 private:
  std::FILE *in_, *out_;
};

Matrix matrix(Files& files) {
  Matrix m;
  m.rows = files.number();
  m.cols = files.number();
  m.weights = files.list<std::int8_t>();
  m.multiplier = files.list<std::int32_t>();
  m.bias = files.list<std::int32_t>();
  m.exponent = static_cast<int>(static_cast<std::int64_t>(files.number()));
  return m;
}

Norm norm(Files& files) {
  Norm n;
  n.weight = files.list<std::int32_t>();
  n.bias = files.list<std::int32_t>();
  return n;
}

Weights weights(Files& files) {
  Weights w;
  w.heads = files.number();
  w.past = files.number();
  w.norm_in = norm(files);
  w.layers.resize(files.number());
  for (Layer& layer : w.layers) {
    for (Matrix* m : {&layer.in_proj, &layer.out_proj, &layer.linear1, &layer.linear2}) *m = matrix(files);
    layer.norm1 = norm(files);
    layer.norm2 = norm(files);
  }
  const std::size_t books = files.number();
  for (std::size_t k = 0; k < books; ++k) w.embeddings.push_back(matrix(files));
  for (std::size_t k = 0; k < books; ++k) w.outputs.push_back(matrix(files));
  w.tables.exp2 = files.list<std::int32_t>();
  w.tables.gelu = files.list<std::int32_t>();
  w.tables.cosine = files.list<std::int32_t>();
  w.tables.turns = files.list<std::uint64_t>();
  check(w);
  return w;
}

void pack_and_unpack(Files& files) {
  const auto width = static_cast<int>(files.number());
  const auto codes = files.list<std::uint16_t>();
  std::vector<std::uint8_t> bytes(packed_size(codes.size(), width));
  pack(codes, width, bytes);
  files.write(bytes);
  std::vector<std::uint16_t> again(codes.size());
  unpack(bytes, width, again);
  if (again != codes) throw std::runtime_error("unpacked codes differ");
}

// The model's tables along the codes, then the codes' bytes under these tables.
void model(Files& files) {
  const Weights w = weights(files);
  State state(w);
  const auto codes = files.list<std::uint16_t>();  // step by step
  const std::size_t books = w.outputs.size(), steps = codes.size() / books, symbols = w.symbols();
  std::vector<std::int32_t> tokens(books);
  std::vector<std::uint32_t> tables(steps * books * symbols);
  std::vector<std::uint8_t> bytes;
  Encoder encoder;
  for (std::size_t t = 0; t < steps; ++t) {
    const std::span<std::uint32_t> cdf(tables.data() + t * books * symbols, books * symbols);
    state.step(tokens, cdf);
    for (std::size_t k = 0; k < books; ++k) {
      encoder.push(codes[t * books + k], cdf.subspan(k * symbols, symbols));
      tokens[k] = codes[t * books + k] + 1;
    }
  }
  bytes = encoder.finish();
  files.write(tables);
  files.write(bytes);
  Decoder decoder;
  decoder.enter(bytes);
  for (std::size_t i = 0; i < codes.size(); ++i) {
    if (decoder.pull({tables.data() + i * symbols, symbols}) != codes[i]) throw std::runtime_error("read codes differ");
  }
}

}  // namespace

int main(int count, char** names) {
  if (count != 3) return 2;
  try {
    Files files(names[1], names[2]);
    pack_and_unpack(files);
    model(files);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
