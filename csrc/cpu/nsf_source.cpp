// Torch's view of nsf_source.
#include "glue.h"

namespace fastvoc {
namespace {

using torch::headeronly::ScalarType;

int64_t* state_rows(const Tensor& state, int64_t items, int rows) {
  STD_TORCH_CHECK(state.is_cpu() && state.scalar_type() == ScalarType::Long && state.is_contiguous() &&
                      state.numel() == items * (rows + 1),
                  "state: expected ", items, " x ", rows + 1, " contiguous int64 values on the CPU");
  return state.mutable_data_ptr<int64_t>();
}

Tensor nsf_source(const NsfSourceCall& call) {
  const MaybeTensor &state = call.state, &phase = call.phase, &seed = call.seed, &noise = call.noise, &frames = call.frames;
  const int rows = as_int(call.weight.numel());
  STD_TORCH_CHECK(rows >= 1 && rows <= kMaxSines, "weight: expected 1..", kMaxSines, " values");
  NsfSourceArgs args{};
  args.weight = packed(call.weight, rows, "weight");
  args.rows = rows;
  args.bias = *packed(call.bias, 1, "bias");
  args.rate = static_cast<double>(call.rate);
  args.hop = call.hop;
  args.kind = static_cast<NsfKind>(call.kind);
  args.noise = noise ? NsfNoise::kGiven : static_cast<NsfNoise>(call.drawn);
  args.amp = static_cast<float>(call.amp);
  args.noise_std = static_cast<float>(call.noise_std);
  args.threshold = static_cast<float>(call.threshold);
  STD_TORCH_CHECK(args.hop >= 1 && args.rate >= 1, "nsf_source: expected a positive rate and hop");

  const Batch batch(call.f0, 1, call.lengths);
  const int64_t items = batch.items();
  const int64_t* made = nullptr;
  if (frames) {
    STD_TORCH_CHECK(frames->is_cpu() && frames->scalar_type() == ScalarType::Long && frames->is_contiguous() &&
                        frames->numel() == items,
                    "frames: expected ", items, " contiguous int64 values on the CPU");
    made = frames->const_data_ptr<int64_t>();
    for (int64_t i = 0; i < items; ++i) {
      STD_TORCH_CHECK(made[i] >= 0 && made[i] <= batch.length(i), "frames: expected values of 0 up to the lengths");
    }
  }
  if (phase) check_floats(*phase, "phase");
  if (noise) check_floats(*noise, "noise");
  int64_t* kept = state ? state_rows(*state, items, rows) : nullptr;
  std::vector<std::uint64_t> phases(static_cast<std::size_t>(items * rows));
  std::vector<NsfItem> work(static_cast<std::size_t>(items));
  for (int64_t i = 0; i < items; ++i) {
    std::uint64_t* own = &phases[static_cast<std::size_t>(i * rows)];
    NsfItem& item = work[static_cast<std::size_t>(i)];
    item = {batch.source(i), own, 0, 0, nullptr, 0, 0};
    if (seed) item.seed = static_cast<std::uint64_t>(seed->const_data_ptr<int64_t>()[i * seed->stride(0)]);
    if (noise) {
      item.noise = noise->const_data_ptr<float>() + i * noise->stride(0);
      item.noise_row = noise->stride(1);
      item.noise_step = noise->stride(2);
    }
    if (kept) {
      item.position = static_cast<std::uint64_t>(kept[i * (rows + 1)]);
      for (int h = 0; h < rows; ++h) own[h] = static_cast<std::uint64_t>(kept[i * (rows + 1) + 1 + h]);
    } else if (phase) {
      const float* radians = phase->const_data_ptr<float>() + i * phase->stride(0);
      for (int h = 0; h < rows; ++h) own[h] = phase_units(double{radians[h * phase->stride(1)]} / (2 * M_PI));
    } else if (args.kind == NsfKind::kSample) {
      for (int h = 1; h < rows; ++h) own[h] = start_phase(item.seed, h);
    }
  }

  const Output out(items, 1, batch.steps() * args.hop);
  const FloatKernels& table = engine().only_floats;
  const auto steps = [&](int64_t i) { return (made ? made[i] : batch.length(i)) * args.hop; };
  over_items(items, 2048, steps, [&](int64_t i, int64_t begin, int64_t end) {
    table.nsf_source(args, work[static_cast<std::size_t>(i)], out.sink(i), begin, end);
  });
  for (int64_t i = 0; i < items; ++i) {
    out.clear_tail(i, steps(i));
    if (!kept) continue;
    std::uint64_t total = 0;
    const NsfItem& item = work[static_cast<std::size_t>(i)];
    for (int64_t f = 0; f < steps(i) / args.hop; ++f) total += advance(args, item.f0, f);
    total *= static_cast<std::uint64_t>(args.hop);
    kept[i * (rows + 1)] += steps(i);
    for (int h = 0; h < rows; ++h) {
      kept[i * (rows + 1) + 1 + h] = static_cast<int64_t>(item.phases[h] + total * static_cast<std::uint64_t>(h + 1));
    }
  }
  return out.tensor();
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CPU, m) {
  m.impl("nsf_source", fastvoc::boxed<fastvoc::NsfSourceCall, fastvoc::nsf_source>);
}
