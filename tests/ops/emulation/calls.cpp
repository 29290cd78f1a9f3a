// The CUDA ops behind a C function, for tests that call them through ctypes: by name, with what their schemas list.
#include <torch/csrc/stable/library.h>

#include "cuda/platform.cuh"

namespace {

using stand_in::Value;
using torch::stable::Tensor;

// A value of any type: `kind` is an index of stand_in::Value; tensors, lists and results of both lie at `data`.
struct Given {
  std::int64_t kind;
  std::int64_t integer;
  double number;
  void* data;
  std::int64_t count;  // of a list, or a tensor's dimensions
  std::int64_t sizes[6];
  std::int64_t strides[6];
  std::int64_t type;
};

template <class T>
std::vector<T> listed(const Given& g) {
  const T* data = static_cast<const T*>(g.data);
  return {data, data + g.count};
}

Value value_of(const Given& g) {
  switch (g.kind) {
    case 0:
      return {};
    case 1:
      return Tensor(g.data, {g.sizes, g.sizes + g.count}, {g.strides, g.strides + g.count},
                    static_cast<torch::headeronly::ScalarType>(g.type));
    case 2:
      return g.integer;
    case 3:
      return g.number;
    case 4:
      return listed<std::int64_t>(g);
    default:
      return listed<double>(g);
  }
}

void give(const Value& value, Given& g) {
  g.kind = static_cast<std::int64_t>(value.index());
  if (const auto* integer = std::get_if<std::int64_t>(&value)) g.integer = *integer;
  const auto* t = std::get_if<Tensor>(&value);
  if (!t) return;
  g.data = t->mutable_data_ptr();
  g.count = t->dim();
  for (std::int64_t i = 0; i < g.count; ++i) {
    g.sizes[i] = t->size(i);
    g.strides[i] = t->stride(i);
  }
  g.type = static_cast<std::int64_t>(t->scalar_type());
}

}  // namespace

// Calls an op on a device with so much shared memory for a block and so many multiprocessors, of which this process is granted
// some. `flags`: 1 a block's threads run last first, 2 launches are only counted, 4 it has Hopper's instructions, 8 their bulk
// copies are there at once. Returns how many launches there were, the first result, which stays until the next call, and null or
// what was wrong.
extern "C" const char* call(const char* name, const Given* given, std::int64_t count, int shared, std::int64_t multiprocessors,
                            std::int64_t granted, int flags, std::int64_t* launches, Given* result) {
  static std::vector<Value> results;
  static std::string problem;
  stand_in::cuda = true;
  emulation::shared_limit = shared;
  emulation::multiprocessors = multiprocessors;
  emulation::granted = granted;
  emulation::device = -1;
  emulation::backwards = (flags & 1) != 0;
  emulation::dry = (flags & 2) != 0;
  emulation::hopper = (flags & 4) != 0;
  emulation::early = (flags & 8) != 0;
  emulation::launches = 0;
  try {
    std::vector<Value> values;
    for (std::int64_t i = 0; i < count; ++i) values.push_back(value_of(given[i]));
    results = stand_in::call(name, values);
    give(results.at(0), *result);
  } catch (const std::exception& error) {
    problem = error.what();
    return problem.c_str();
  }
  *launches = emulation::launches;
  return nullptr;
}
