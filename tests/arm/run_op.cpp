// Runs one op of the portable engine on a file of numbers: op, shape and packed tensors in, the output out.
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "cpu/arena.h"
#include "cpu/dispatch.h"

using namespace fastvoc;

namespace {

template <class T>
std::vector<T> values(std::FILE* file) {
  std::int64_t count = 0;
  if (std::fread(&count, sizeof count, 1, file) != 1) std::exit(3);
  std::vector<T> out(static_cast<std::size_t>(count));
  if (std::fread(out.data(), sizeof(T), out.size(), file) != out.size()) std::exit(3);
  return out;
}

// The activations as fastvoc/packing.py packs them.
Act act(std::int64_t kind, float slope, const float*& curves, int channels) {
  Act found{static_cast<ActKind>(kind), slope, nullptr, nullptr};
  if (found.kind == ActKind::kSnake) {
    found.alpha = curves;
    found.inverse = curves + padded(channels);
    curves += 2 * padded(channels);
  }
  return found;
}

template <class Args>
float* memory(const Args& args, std::int64_t steps) {
  return Arena::mine().floats(static_cast<std::size_t>(workspace_floats(args, steps)));
}

}  // namespace

int main(int count, char** names) {
  if (count != 3) return 2;
  std::FILE* in = std::fopen(names[1], "rb");
  if (!in) return 2;
  const auto shape = values<std::int64_t>(in);
  const auto slopes = values<float>(in);
  const auto curves = values<float>(in), weight = values<float>(in), bias = values<float>(in), x = values<float>(in);
  std::fclose(in);
  const auto n = [&](int i) { return static_cast<int>(shape[static_cast<std::size_t>(i)]); };
  const auto& table = portable::engine().convolutions<float>();
  const std::int64_t steps = shape[1];
  const int cout = n(2), cin = n(3);
  const float* curve = curves.data();
  const Filter<float> filter{weight.data(), bias.data()};
  const Source source{x.data(), cin, 1, static_cast<std::int64_t>(x.size()) / cin, cin};
  std::vector<float> y(static_cast<std::size_t>(steps * cout));
  const Sink sink{y.data(), cout};
  if (n(0) == 0) {
    Conv1dArgs args{cout, cin, n(4), n(5), n(6), n(7), n(8), static_cast<Pad>(n(9)), {}, {}};
    args.pre = act(shape[10], slopes[0], curve, cin);
    args.post = act(shape[11], slopes[1], curve, cout);
    table.conv1d(args, filter, source, nullptr, sink, 0, steps, memory(args, steps));
  } else {
    UpsampleArgs args{cout, cin, n(4), n(5), n(6), n(7), {}};
    args.pre = act(shape[8], slopes[0], curve, cin);
    table.upsample(args, filter, source, sink, 0, steps, memory(args, steps));
  }
  std::FILE* out = std::fopen(names[2], "wb");
  if (!out || std::fwrite(y.data(), sizeof(float), y.size(), out) != y.size()) return 3;
  return std::fclose(out) ? 3 : 0;
}
