// Calls kernels by name on what a file holds, and writes what they return and what they changed.
#include <cstdio>
#include <cstdlib>
#include <exception>

#include <torch/csrc/stable/library.h>

namespace {

using stand_in::Tensor;
using stand_in::Value;

class File {
 public:
  File(const char* name, const char* mode) : file_(std::fopen(name, mode)) {
    if (!file_) stand_in::refuse("cannot open ", name);
  }
  ~File() { std::fclose(file_); }
  File(const File&) = delete;

  void read(void* data, std::size_t size) {
    if (std::fread(data, 1, size, file_) != size) stand_in::refuse("the file ends early");
  }
  void write(const void* data, std::size_t size) {
    if (std::fwrite(data, 1, size, file_) != size) stand_in::refuse("cannot write");
  }

  std::int64_t number() {
    std::int64_t value = 0;
    read(&value, sizeof value);
    return value;
  }

  template <class T>
  std::vector<T> list() {
    std::vector<T> values(static_cast<std::size_t>(number()));
    read(values.data(), values.size() * sizeof(T));
    return values;
  }

 private:
  std::FILE* file_;
};

std::size_t bytes_of(const Tensor& t) {
  return static_cast<std::size_t>(t.numel()) * torch::stable::bytes_of(t.scalar_type());
}

Tensor read_tensor(File& file) {
  const auto type = static_cast<torch::headeronly::ScalarType>(file.number());
  const Tensor t(file.list<std::int64_t>(), type);
  file.read(t.mutable_data_ptr(), bytes_of(t));
  return t.reordered(file.list<std::int64_t>());
}

Value read_value(File& file) {
  switch (file.number()) {
    case 0:
      return {};
    case 1:
      return read_tensor(file);
    case 2:
      return file.number();
    case 3:
      return file.list<double>().at(0);
    case 4:
      return file.list<std::int64_t>();
    case 5:
      return file.list<double>();
    default: {
      std::vector<Tensor> tensors;
      for (std::int64_t left = file.number(); left > 0; --left) tensors.push_back(read_tensor(file));
      return tensors;
    }
  }
}

// The elements in the order of the sizes, whatever the strides.
void write_tensor(File& file, const Tensor& t) {
  const std::size_t width = torch::stable::bytes_of(t.scalar_type());
  const auto* data = static_cast<const std::byte*>(t.const_data_ptr());
  std::vector<std::int64_t> at(static_cast<std::size_t>(t.dim()));
  for (std::int64_t n = 0; n < t.numel(); ++n) {
    std::int64_t place = 0;
    for (std::size_t i = 0; i < at.size(); ++i) place += at[i] * t.stride(static_cast<std::int64_t>(i));
    file.write(data + static_cast<std::size_t>(place) * width, width);
    for (std::size_t i = at.size(); i-- > 0;) {
      if (++at[i] < t.size(static_cast<std::int64_t>(i))) break;
      at[i] = 0;
    }
  }
}

void run(File& in, File& out) {
  const auto name = in.list<char>();
  std::vector<Value> values(static_cast<std::size_t>(in.number()));
  for (Value& value : values) value = read_value(in);
  const auto changed = in.list<std::int64_t>();
  for (const Value& value : stand_in::call({name.begin(), name.end()}, values)) write_tensor(out, std::get<Tensor>(value));
  for (const std::int64_t i : changed) write_tensor(out, std::get<Tensor>(values.at(static_cast<std::size_t>(i))));
}

}  // namespace

int main(int count, char** names) {
  if (count != 3) return 2;
  std::int64_t call = 0;
  try {
    File in(names[1], "rb"), out(names[2], "wb");
    for (const std::int64_t calls = in.number(); call < calls; ++call) run(in, out);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "call %lld: %s\n", static_cast<long long>(call), error.what());
    return 1;
  }
}
