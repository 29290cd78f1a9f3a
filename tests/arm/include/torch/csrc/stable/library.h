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

inline thread_local std::size_t given = 0;  // values that the kernel called last has returned

}  // namespace stand_in

using StableIValue = stand_in::Value;

namespace torch::stable::detail {

template <class T>
T to(const StableIValue& value) {
  return stand_in::Unboxed<T>::of(value);
}

template <class T>
StableIValue from(const T& value) {
  ++stand_in::given;
  if constexpr (std::is_integral_v<T>) return std::int64_t{value};
  else return value;
}

}  // namespace torch::stable::detail

namespace stand_in {

using Boxed = void (*)(StableIValue*, std::uint64_t, std::uint64_t);

class Library {
 public:
  static std::map<std::string, Boxed>& kernels() {
    static std::map<std::string, Boxed> all;
    return all;
  }
  void impl(const char* name, Boxed kernel) { kernels()[name] = kernel; }
};

// What a kernel returns for these values.
inline std::vector<Value> call(const std::string& name, std::vector<Value> stack) {
  const auto kernel = Library::kernels().find(name);
  if (kernel == Library::kernels().end()) refuse("no such kernel: ", name);
  const std::size_t count = stack.size();
  stack.resize(count + 3);
  given = 0;
  kernel->second(stack.data(), count, 0);
  stack.resize(given);
  return stack;
}

// A kernel of numbers, as torch's macro boxes it.
template <auto kernel>
struct Box;
template <class Result, class... Args, Result (*kernel)(Args...)>
struct Box<kernel> {
  static void call(StableIValue* stack, std::uint64_t, std::uint64_t) { at(stack, std::index_sequence_for<Args...>()); }

 private:
  template <std::size_t... i>
  static void at(StableIValue* stack, std::index_sequence<i...>) {
    stack[0] = torch::stable::detail::from(kernel(Unboxed<std::decay_t<Args>>::of(stack[i])...));
  }
};

}  // namespace stand_in

#define TORCH_BOX(kernel) (&::stand_in::Box<(kernel)>::call)

// Numbered, so that several sources can be one unit.
#define STABLE_TORCH_LIBRARY_IMPL(space, key, m) STAND_IN_NUMBERED(__COUNTER__, m)
#define STAND_IN_NUMBERED(number, m) STAND_IN_REGISTERED(number, m)
#define STAND_IN_REGISTERED(number, m)                                       \
  static void registering_##number(::stand_in::Library& m);                  \
  [[maybe_unused]] static const bool registered_##number = [] {              \
    ::stand_in::Library library;                                             \
    registering_##number(library);                                           \
    return true;                                                             \
  }();                                                                       \
  static void registering_##number(::stand_in::Library& m)
