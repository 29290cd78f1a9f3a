// Python's view of the coder, used by fastvoc/ecdc/coder.py only. Wrong sizes and values raise ValueError; data that end early
// raise EOFError; a code that no symbol has raises LookupError.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <mutex>
#include <string_view>

#include "arithmetic.h"
#include "bits.h"
#include "integer_lm.h"

namespace py = pybind11;

namespace fastvoc::coder {
namespace {

template <class T>
using Array = py::array_t<T, py::array::c_style>;

template <class T>
std::span<const T> flat(const Array<T>& array) {
  return {array.data(), static_cast<std::size_t>(array.size())};
}

template <class T>
std::vector<T> copied(py::handle array) {
  const auto values = py::cast<Array<T>>(array);
  return {values.data(), values.data() + values.size()};
}

std::span<const std::uint8_t> bytes_of(const py::bytes& data) {
  const auto view = static_cast<std::string_view>(data);
  return {reinterpret_cast<const std::uint8_t*>(view.data()), view.size()};
}

py::bytes to_bytes(const std::vector<std::uint8_t>& data) {
  return {reinterpret_cast<const char*>(data.data()), data.size()};
}

void check_width(int width) {
  if (width < 1 || width > 16) throw std::invalid_argument("width: expected 1 to 16 bits");
}

py::bytes pack_codes(const Array<std::uint16_t>& codes, int width) {
  check_width(width);
  const auto values = flat(codes);
  for (const std::uint16_t value : values) {
    if (value >> width) throw std::invalid_argument("codes: a value does not fit");
  }
  std::vector<std::uint8_t> bytes(packed_size(values.size(), width));
  pack(values, width, bytes);
  return to_bytes(bytes);
}

Array<std::uint16_t> unpack_codes(const py::bytes& data, int width, std::size_t count) {
  check_width(width);
  const auto bytes = bytes_of(data);
  // Divided, because count * width might overflow.
  if (count > bytes.size() * 8 / width) throw Truncated();
  Array<std::uint16_t> codes(static_cast<py::ssize_t>(count));
  unpack(bytes, width, {codes.mutable_data(), count});
  return codes;
}

// The row of a [K, N] table that belongs to symbol k.
std::span<const std::uint32_t> row(const Array<std::uint32_t>& cdf, py::ssize_t k) {
  return {cdf.data(k, 0), static_cast<std::size_t>(cdf.shape(1))};
}

void check_table(const Array<std::uint32_t>& cdf) {
  if (cdf.ndim() != 2 || cdf.shape(1) < 1 || cdf.shape(1) > 1 << 16) throw std::invalid_argument("cdf: expected a shape [K, N]");
}

void push(Encoder& encoder, const Array<std::uint16_t>& symbols, const Array<std::uint32_t>& cdf) {
  check_table(cdf);
  if (symbols.ndim() != 1 || symbols.shape(0) != cdf.shape(0)) {
    throw std::invalid_argument("symbols: expected one for each row of cdf");
  }
  for (py::ssize_t k = 0; k < cdf.shape(0); ++k) encoder.push(symbols.at(k), row(cdf, k));
}

py::tuple pull(Decoder& decoder, const Array<std::uint32_t>& cdf, const py::bytes& window) {
  check_table(cdf);
  Array<std::uint16_t> symbols(cdf.shape(0));
  decoder.enter(bytes_of(window));
  for (py::ssize_t k = 0; k < cdf.shape(0); ++k) {
    symbols.mutable_at(k) = static_cast<std::uint16_t>(decoder.pull(row(cdf, k)));
  }
  const std::size_t used = decoder.used();
  decoder.enter({});
  return py::make_tuple(symbols, used);
}

Matrix matrix(const py::tuple& parts) {
  const auto weights = py::cast<Array<std::int8_t>>(parts[0]);
  if (weights.ndim() != 2) throw std::invalid_argument("weights: expected a shape [rows, columns]");
  return {static_cast<std::size_t>(weights.shape(0)),
          static_cast<std::size_t>(weights.shape(1)),
          py::cast<int>(parts[3]),
          {weights.data(), weights.data() + weights.size()},
          copied<std::int32_t>(parts[1]),
          copied<std::int32_t>(parts[2])};
}

Norm norm(const py::tuple& parts) { return {copied<std::int32_t>(parts[0]), copied<std::int32_t>(parts[1])}; }

Layer layer(const py::tuple& parts) {
  return {matrix(parts[0]), matrix(parts[1]), matrix(parts[2]), matrix(parts[3]), norm(parts[4]), norm(parts[5])};
}

std::vector<Matrix> matrices(const py::list& parts) {
  std::vector<Matrix> all;
  for (const py::handle part : parts) all.push_back(matrix(py::cast<py::tuple>(part)));
  return all;
}

Weights weights(std::size_t heads, std::size_t past, const py::tuple& norm_in, const py::list& layers,
                const py::list& embeddings, const py::list& outputs, const py::tuple& tables) {
  Weights w;
  w.heads = heads;
  w.past = past;
  w.norm_in = norm(norm_in);
  for (const py::handle part : layers) w.layers.push_back(layer(py::cast<py::tuple>(part)));
  w.embeddings = matrices(embeddings);
  w.outputs = matrices(outputs);
  w.tables = {copied<std::int32_t>(tables[0]), copied<std::int32_t>(tables[1]), copied<std::int32_t>(tables[2]),
              copied<std::uint64_t>(tables[3])};
  check(w);
  return w;
}

// A state that threads may share: their steps come one after another.
struct SharedState {
  SharedState(const Weights& w) : weights(w), state(w) {}

  const Weights& weights;
  State state;
  std::mutex busy;
};

Array<std::uint32_t> step(SharedState& shared, const Array<std::int32_t>& tokens) {
  const Weights& w = shared.weights;
  const auto given = flat(tokens);
  if (tokens.ndim() != 1 || given.size() < 1 || given.size() > w.outputs.size()) {
    throw std::invalid_argument("tokens: expected one for each of 1 or more codebooks that the model has");
  }
  for (const std::int32_t token : given) {
    if (token < 0 || static_cast<std::size_t>(token) > w.symbols()) throw std::invalid_argument("tokens: out of range");
  }
  Array<std::uint32_t> cdf({given.size(), w.symbols()});
  const std::span<std::uint32_t> made(cdf.mutable_data(), static_cast<std::size_t>(cdf.size()));
  {
    const py::gil_scoped_release release;
    const std::lock_guard lock(shared.busy);
    shared.state.step(given, made);
  }
  return cdf;
}

}  // namespace

PYBIND11_MODULE(_C_coder, m) {
  py::register_exception_translator([](std::exception_ptr thrown) {
    try {
      if (thrown) std::rethrow_exception(thrown);
    } catch (const Truncated& error) {
      PyErr_SetString(PyExc_EOFError, error.what());
    } catch (const Impossible& error) {
      PyErr_SetString(PyExc_LookupError, error.what());
    }
  });
  m.def("pack", &pack_codes, py::arg("codes"), py::arg("width"));
  m.def("unpack", &unpack_codes, py::arg("data"), py::arg("width"), py::arg("count"));
  py::class_<Encoder>(m, "ArithmeticEncoder")
      .def(py::init<>())
      .def("push", &push, py::arg("symbols"), py::arg("cdf"))
      .def("take", [](Encoder& encoder) { return to_bytes(encoder.take()); })
      .def("finish", [](Encoder& encoder) { return to_bytes(encoder.finish()); });
  py::class_<Decoder>(m, "ArithmeticDecoder")
      .def(py::init<>())
      .def("pull", &pull, py::arg("cdf"), py::arg("window"));
  py::class_<Weights>(m, "IntegerLm")
      .def(py::init(&weights), py::arg("heads"), py::arg("past"), py::arg("norm_in"), py::arg("layers"),
           py::arg("embeddings"), py::arg("outputs"), py::arg("tables"))
      .def("start", [](const Weights& w) { return std::make_unique<SharedState>(w); }, py::keep_alive<0, 1>());
  py::class_<SharedState>(m, "IntegerLmState").def("step", &step, py::arg("tokens"));
}

}  // namespace fastvoc::coder
