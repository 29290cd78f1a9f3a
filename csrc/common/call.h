// A call of a native op as torch hands it over: what its schema lists, in that order, read into fields with names.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include <cstdint>
#include <optional>
#include <tuple>
#include <vector>

namespace fastvoc {

using torch::stable::Tensor;
using MaybeTensor = std::optional<Tensor>;
using Tensors = std::vector<Tensor>;
using Ints = std::vector<std::int64_t>;
using Doubles = std::vector<double>;

// What calls.h derives from: the initialiser of each field reads the next value.
class Call {
 public:
  Call(StableIValue* stack, std::uint64_t count) : next_(stack), end_(stack + count) {}
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  void check_read() const {
    STD_TORCH_CHECK(next_ == end_, "the library and the package have different schemas: build the library again");
  }

 protected:
  Tensor tensor() { return read<Tensor>(); }
  MaybeTensor maybe() { return read<MaybeTensor>(); }
  Tensors tensors() { return read<Tensors>(); }
  Ints ints() { return read<Ints>(); }
  Doubles doubles() { return read<Doubles>(); }
  int integer() { return static_cast<int>(read<std::int64_t>()); }
  std::int64_t long_integer() { return read<std::int64_t>(); }
  double number() { return read<double>(); }
  bool flag() { return read<bool>(); }

 private:
  template <class T>
  T read() {
    STD_TORCH_CHECK(next_ != end_, "the library and the package have different schemas: build the library again");
    return torch::stable::detail::to<T>(*next_++);
  }

  StableIValue* next_;
  StableIValue* end_;
};

template <class Result>
void give(StableIValue* stack, const Result& result) {
  stack[0] = torch::stable::detail::from(result);
}
template <class... Results>
void give(StableIValue* stack, const std::tuple<Results...>& results) {
  std::apply([&](const auto&... each) { ((*stack++ = torch::stable::detail::from(each)), ...); }, results);
}

// What torch registers for an op: `run` takes the call.
template <class Given, auto run>
void boxed(StableIValue* stack, std::uint64_t count, std::uint64_t) {
  const Given call(stack, count);
  call.check_read();
  give(stack, run(call));
}

}  // namespace fastvoc
