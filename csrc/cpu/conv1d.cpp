// Torch's view of conv1d.
#include "glue.h"

namespace fastvoc {
namespace {

// Output steps made from a number of input steps.
int64_t made(const Conv1dArgs& args, int64_t steps) {
  return (steps + args.left + args.right - int64_t{1} * args.dilation * (args.kernel - 1) - 1) / args.stride + 1;
}

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

Tensor conv1d_wide(const Conv1dArgs& shape, const Conv1dCall& call) {
  const Tensor& x = call.x;
  const int width = padded(shape.cout);
  const Conv1dWideArgs args{shape, packed_doubles(call.weight, int64_t{1} * width * shape.kernel * shape.cin, "weight"),
                            packed_doubles(call.bias, width, "bias"), call.slopes[0], call.slopes[1]};
  STD_TORCH_CHECK(shape.pre.kind != ActKind::kSnake && shape.post.kind != ActKind::kSnake, "conv1d: no snake in float64");
  check_doubles(x, "x");
  const int64_t items = x.size(0);
  const Lengths valid(call.lengths, items, x.size(2));
  const int64_t longest = made(shape, x.size(2));
  if (call.residual) check_doubles(*call.residual, "residual");
  const Tensor rows = torch::stable::empty({items, longest, shape.cout}, torch::headeronly::ScalarType::Double);
  double* y = rows.mutable_data_ptr<double>();
  const FloatKernels& table = engine().only_floats;
  const auto steps = [&](int64_t item) { return made(shape, valid[item]); };
  over_items(items, 24, steps, [&](int64_t item, int64_t begin, int64_t end) {
    const int64_t count = 2 * wide_workspace(shape, end - begin);
    auto* memory = reinterpret_cast<double*>(Arena::mine().floats(static_cast<std::size_t>(count)));
    const WideSource added = call.residual ? wide_source(*call.residual, item, steps(item)) : WideSource{};
    table.conv1d_wide(args, wide_source(x, item, valid[item]), call.residual ? &added : nullptr,
                      y + item * longest * shape.cout, begin, end, memory);
  });
  for (int64_t i = 0; i < items; ++i) {
    std::fill(y + (i * longest + steps(i)) * shape.cout, y + (i + 1) * longest * shape.cout, 0.0);
  }
  return torch::stable::transpose(rows, 1, 2);
}

template <class Element>
Tensor run(Conv1dArgs args, const Conv1dCall& call) {
  using Given = Outer<Element>;
  const int width = padded(args.cout);
  const bool single = args.single() && !std::is_same_v<Element, std::uint8_t>;
  const int64_t window = int64_t{1} * args.kernel * args.cin, lanes = kPanelWidth * Numbers<Element>::kGroup;
  const int64_t weights = single ? ceil_div(window, lanes) * lanes : int64_t{1} * width * args.kernel * grouped<Element>(args.cin);
  args.paired = std::is_same_v<Element, float> && args.pairable() && call.weight.numel() > weights;
  const int64_t held = args.paired ? weights / 2 * 3 : weights;
  const auto filter = Filters<Element>(call.weight, held, call.bias, 1, width).next(held);
  const AnyBatch batch(call.x, args.cin, call.lengths);
  const OutputOf<Given> out(batch.items(), args.cout, made(args, batch.steps()));
  if (call.residual) check_elements<Given>(*call.residual, "residual");
  const auto& table = engine().convolutions<Element>();
  const auto steps = [&](int64_t item) { return made(args, batch.length(item)); };
  const auto work = [&](int64_t item, int64_t begin, int64_t end, const Team* team) {
    Conv1dArgs mine = args;
    mine.team = team;
    const int64_t count = workspace_floats(args, end - begin);
    float* memory = Arena::mine().floats(static_cast<std::size_t>(count));
    SourceOf<Given> added{};
    if (call.residual) added = source_of<Given>(*call.residual, item, steps(item), args.cout);
    table.conv1d(mine, filter, batch.source(item), call.residual ? &added : nullptr, out.sink(item), begin, end, memory);
  };
  // Weights that no L2 cache holds are not read by every thread for few pairs.
  const int64_t fewest = args.paired && held > 1 << 18 ? 72 : 24;
  over_items_or_panels(batch.items(), fewest, steps, width / kPanelWidth, work, args.paired ? 2 : 1);
  return out.tensor(steps);
}

Tensor conv1d(const Conv1dCall& call) {
  Conv1dArgs args{call.cout, call.cin, call.kernel, call.stride, call.dilation, call.left, call.right, as_pad(call.pad), {}, {}};
  const auto acts = activations(call, 2, [&](std::size_t i) { return i == 0 ? args.cin : args.cout; });
  args.pre = acts[0];
  args.post = acts[1];
  STD_TORCH_CHECK(call.x.dim() == 3 && call.x.size(1) == args.cin, "x: expected [B, ", args.cin, ", T]");
  if (call.x.scalar_type() == torch::headeronly::ScalarType::Double) return conv1d_wide(args, call);
  return by_element(call.weight, [&](auto element) { return run<decltype(element)>(args, call); });
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CPU, m) { m.impl("conv1d", fastvoc::boxed<fastvoc::Conv1dCall, fastvoc::conv1d>); }
