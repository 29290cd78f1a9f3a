// Stands in for torch's registration: kernels by name, called with values of any of the types that a schema can have.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <type_traits>
#include <variant>
#include <vector>

#include <torch/csrc/stable/tensor.h>

namespace stand_in {

using torch::stable::Tensor;
using Value = std::variant<std::monostate, Tensor, std::int64_t, double, std::vector<std::int64_t>, std::vector<double>,
                           std::vector<Tensor>>;
using Boxed = std::vector<Tensor> (*)(const std::vector<Value>&);

class Library {
 public:
  static std::map<std::string, Boxed>& kernels() {
    static std::map<std::string, Boxed> all;
    return all;
  }
  void impl(const char* name, Boxed kernel) { kernels()[name] = kernel; }
};

template <class T>
struct Unboxed {
  static T of(const Value& value) { return std::get<T>(value); }
};
template <>
struct Unboxed<bool> {
  static bool of(const Value& value) { return std::get<std::int64_t>(value) != 0; }
};
template <class T>
struct Unboxed<std::optional<T>> {
  static std::optional<T> of(const Value& value) {
    return std::holds_alternative<std::monostate>(value) ? std::nullopt : std::optional<T>(Unboxed<T>::of(value));
  }
};

// Numbers that a kernel returns are left out: only cpu_isa and its like have them.
template <class Result>
std::vector<Tensor> tensors(const Result& result) {
  if constexpr (std::is_same_v<Result, Tensor>) return {result};
  else if constexpr (std::is_arithmetic_v<Result>) return {};
  else return std::apply([](const auto&... each) { return std::vector<Tensor>{each...}; }, result);
}

template <auto kernel>
struct Box;
template <class Result, class... Args, Result (*kernel)(Args...)>
struct Box<kernel> {
  static std::vector<Tensor> call(const std::vector<Value>& values) {
    if (values.size() != sizeof...(Args)) refuse("expected ", sizeof...(Args), " arguments, got ", values.size());
    return at(values, std::index_sequence_for<Args...>());
  }

 private:
  template <std::size_t... i>
  static std::vector<Tensor> at(const std::vector<Value>& values, std::index_sequence<i...>) {
    if constexpr (std::is_void_v<Result>) {
      kernel(Unboxed<std::decay_t<Args>>::of(values[i])...);
      return {};
    } else {
      return tensors(kernel(Unboxed<std::decay_t<Args>>::of(values[i])...));
    }
  }
};

}  // namespace stand_in

#define TORCH_BOX(kernel) (&::stand_in::Box<(kernel)>::call)

#define STABLE_TORCH_LIBRARY_IMPL(space, key, m)                             \
  static void space##_##key(::stand_in::Library& m);                         \
  [[maybe_unused]] static const bool space##_##key##_done = [] {             \
    ::stand_in::Library library;                                             \
    space##_##key(library);                                                  \
    return true;                                                             \
  }();                                                                       \
  static void space##_##key(::stand_in::Library& m)
