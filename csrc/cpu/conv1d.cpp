// Torch's view of conv1d.
#include "glue.h"

namespace fastvoc {
namespace {

void check_doubles(const Tensor& t, const char* name) {
  STD_TORCH_CHECK(t.is_cpu() && t.scalar_type() == torch::headeronly::ScalarType::Double, name,
                  ": expected a float64 tensor on the CPU");
}

const double* packed_doubles(const Tensor& t, int64_t count, const char* name) {
  check_doubles(t, name);
  STD_TORCH_CHECK(t.is_contiguous() && t.numel() == count, name, ": expected ", count, " packed doubles, got ", t.numel());
  return t.const_data_ptr<double>();
}

WideSource wide_source(const Tensor& x, int64_t item, int64_t steps) {
  return {x.const_data_ptr<double>() + item * x.stride(0), x.stride(2), x.stride(1), steps};
}

Tensor conv1d_wide(const Conv1dArgs& shape, const Tensor& x, const Tensor& weight, const Tensor& bias,
                   const std::optional<Tensor>& residual, const std::optional<Tensor>& lengths,
                   const std::vector<double>& slopes) {
  const int width = padded(shape.cout);
  const Conv1dWideArgs args{shape, packed_doubles(weight, int64_t{1} * width * shape.kernel * shape.cin, "weight"),
                            packed_doubles(bias, width, "bias"), slopes[0], slopes[1]};
  STD_TORCH_CHECK(shape.pre.kind != ActKind::kSnake && shape.post.kind != ActKind::kSnake, "conv1d: no snake in float64");
  check_doubles(x, "x");
  const int64_t items = x.size(0);
  const int64_t span = int64_t{1} * shape.dilation * (shape.kernel - 1) + 1;
  const auto made = [&](int64_t steps) { return (steps + shape.left + shape.right - span) / shape.stride + 1; };
  const Lengths valid(lengths, items, x.size(2));
  const int64_t longest = made(x.size(2));
  if (residual) check_doubles(*residual, "residual");
  const Tensor rows = torch::stable::empty({items, longest, shape.cout}, torch::headeronly::ScalarType::Double);
  double* y = rows.mutable_data_ptr<double>();
  const FloatKernels& table = engine().only_floats;
  const auto steps = [&](int64_t item) { return made(valid[item]); };
  over_items(items, 24, steps, [&](int64_t item, int64_t begin, int64_t end) {
    const int64_t count = 2 * wide_workspace(shape, end - begin);
    auto* memory = reinterpret_cast<double*>(Arena::mine().floats(static_cast<std::size_t>(count)));
    const WideSource added = residual ? wide_source(*residual, item, made(valid[item])) : WideSource{};
    table.conv1d_wide(args, wide_source(x, item, valid[item]), residual ? &added : nullptr,
                      y + item * longest * shape.cout, begin, end, memory);
  });
  for (int64_t i = 0; i < items; ++i) {
    std::fill(y + (i * longest + steps(i)) * shape.cout, y + (i + 1) * longest * shape.cout, 0.0);
  }
  return torch::stable::transpose(rows, 1, 2);
}

template <class Element>
Tensor run(const Conv1dArgs& args, const Tensor& x, const Tensor& weight, const Tensor& bias,
           const std::optional<Tensor>& residual, const std::optional<Tensor>& lengths) {
  using Given = Outer<Element>;
  const int width = padded(args.cout);
  const bool single = args.single() && !std::is_same_v<Element, std::uint8_t>;
  const int64_t window = int64_t{1} * args.kernel * args.cin, lanes = kPanelWidth * Numbers<Element>::kGroup;
  const int64_t weights = single ? ceil_div(window, lanes) * lanes : int64_t{1} * width * args.kernel * grouped<Element>(args.cin);
  const auto filter = Filters<Element>(weight, weights, bias, 1, width).next(weights);
  const int64_t span = int64_t{1} * args.dilation * (args.kernel - 1) + 1;
  const AnyBatch batch(x, args.cin, lengths);
  const auto made = [&](int64_t steps) { return (steps + args.left + args.right - span) / args.stride + 1; };
  const OutputOf<Given> out(batch.items(), args.cout, made(batch.steps()));
  if (residual) check_elements<Given>(*residual, "residual");
  const auto& table = engine().convolutions<Element>();
  const auto steps = [&](int64_t item) { return made(batch.length(item)); };
  const auto work = [&](int64_t item, int64_t begin, int64_t end, const Team* team) {
    Conv1dArgs mine = args;
    mine.team = team;
    const int64_t count = workspace_floats(args, end - begin);
    float* memory = Arena::mine().floats(static_cast<std::size_t>(count));
    SourceOf<Given> added{};
    if (residual) {
      added = {elements<Given>(*residual) + item * residual->stride(0), residual->stride(2), residual->stride(1),
               made(batch.length(item)), args.cout};
    }
    table.conv1d(mine, filter, batch.source(item), residual ? &added : nullptr, out.sink(item), begin, end, memory);
  };
  over_items_or_panels(batch.items(), 24, steps, width / kPanelWidth, work);
  for (int64_t i = 0; i < batch.items(); ++i) out.clear_tail(i, steps(i));
  return out.tensor();
}

Tensor conv1d(Tensor x, Tensor weight, Tensor bias, std::optional<Tensor> residual, std::optional<Tensor> lengths,
              Ints shape, Ints kinds, std::vector<double> slopes, std::optional<Tensor> curves) {
  STD_TORCH_CHECK(shape.size() == 8, "conv1d: expected 8 shape values");
  Conv1dArgs args{};
  args.cout = as_int(shape[0]);
  args.cin = as_int(shape[1]);
  args.kernel = as_int(shape[2]);
  args.stride = as_int(shape[3]);
  args.dilation = as_int(shape[4]);
  args.left = as_int(shape[5]);
  args.right = as_int(shape[6]);
  args.pad = static_cast<Pad>(shape[7]);
  const auto acts =
      activations(kinds, slopes, curves, 2, [&](std::size_t i) { return i == 0 ? args.cin : args.cout; });
  args.pre = acts[0];
  args.post = acts[1];
  STD_TORCH_CHECK(shape[7] >= 0 && shape[7] <= 2, "conv1d: unknown padding ", shape[7]);
  STD_TORCH_CHECK(x.dim() == 3 && x.size(1) == args.cin, "x: expected [B, ", args.cin, ", T]");
  if (x.scalar_type() == torch::headeronly::ScalarType::Double) {
    return conv1d_wide(args, x, weight, bias, residual, lengths, slopes);
  }
  return by_element(weight, [&](auto element) {
    return run<decltype(element)>(args, x, weight, bias, residual, lengths);
  });
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CPU, m) { m.impl("conv1d", TORCH_BOX(&fastvoc::conv1d)); }
