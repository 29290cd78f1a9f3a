// The mean of residual blocks by Hopper's stage kernel: which tiles, and how many layers one launch takes.
#pragma once

#include <algorithm>
#include <vector>

#include "cuda/mrf_stage.cuh"
#include "cuda/mrf_tiles.cuh"

namespace fastvoc::cuda {

// Convolutions [first, last) of a block, which one launch takes.
struct StageGroup {
  std::size_t block;
  std::size_t first;
  std::size_t last;
  int level;   // launches of its block before it
  bool ends;   // its block
  int lead;    // rows that its convolutions after the first lose at the begin of a tile,
  int trail;   // and at its end
  std::int64_t taps;
};

// Cycles of a multiprocessor for a job: products of both consumers, whose epilogues hide behind one another's, and what its
// input, its state and its result take from the cache. Estimates, as benchmarks/cost_model.py has them.
struct StageCost {
  int rows, columns, width, epilogue;

  double job(std::int64_t taps, std::int64_t convs) const {
    const double products = std::max(columns / 2, 16 + columns / 4) * (rows / 128) * (width / 16) * static_cast<double>(taps);
    const double stores = static_cast<double>(rows) * columns / 512 * epilogue * static_cast<double>(convs);
    const double moved = rows * (2.0 * width + 6.0 * columns) / 24;
    return std::max({2 * products, products + stores, 2 * stores}) + moved + 2000;
  }
};

constexpr double kStageLaunch = 1755, kStageBytes = 2450;  // cycles of a launch, bytes a cycle from memory

// How a stage runs in tiles of a shape. What it rounds does not depend on the shape.
class StagePlan {
 public:
  std::vector<StageGroup> groups;
  int halo = 0;
  int levels = 1;         // launches but for that of the mean
  bool fits = true;       // whether every tile makes enough
  bool together = false;  // whether one job takes the last groups of all blocks
  double cycles = 0;

  template <class T>
  StagePlan(const MrfArgs<T>& a, StageCost cost, std::int64_t multiprocessors) : cost_(cost) {
    std::size_t conv = 0;
    for (std::size_t block = 0; block < a.layers.size(); ++block) {
      const std::size_t end = conv + static_cast<std::size_t>(a.layers[block] * a.depth);
      add_block(a, block, conv, end);
      conv = end;
    }
    for (std::size_t c = 0; c < conv; ++c) halo = std::max(halo, a.reach(c));
    for (const StageGroup& group : groups) {
      levels = std::max(levels, group.level + 1);
      fits = fits && made(group) >= 16;
    }
    if (!fits) return;
    for (int level = 0; level + 1 < levels; ++level) cycles += apart(of_level(level), a, multiprocessors);
    const double one = as_one(a, multiprocessors), each = apart(of_level(levels - 1), a, multiprocessors) + mean(a);
    together = cost_.columns == cost_.width && (a.layers.size() == 1 || one <= each);
    cycles += together ? one : each;
  }

  // The groups of a launch; the last one has all that end blocks. Those that take longest come first, but where they add up.
  std::vector<StageGroup> of_level(int level) const {
    std::vector<StageGroup> found;
    for (const StageGroup& group : groups) {
      if (group.ends ? level + 1 == levels : group.level == level) found.push_back(group);
    }
    if (level + 1 < levels || !together) {
      std::stable_sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.taps > b.taps; });
    }
    return found;
  }

  int made(const StageGroup& group) const { return cost_.rows - group.lead - group.trail; }

 private:
  template <class T>
  static StageGroup group_of(const MrfArgs<T>& a, std::size_t block, std::size_t first, std::size_t last) {
    StageGroup group{block, first, last, 0, false, 0, 0, 0};
    for (std::size_t i = first; i < last; ++i) {
      group.taps += a.kernels[i];
      if (i == first) continue;
      group.lead += a.left(i);
      group.trail += a.right(i);
    }
    return group;
  }

  // The cut into groups of layers, or of single convolutions where a job has not all columns, that takes the fewest cycles.
  template <class T>
  void add_block(const MrfArgs<T>& a, std::size_t block, std::size_t begin, std::size_t end) {
    const std::size_t unit = cost_.columns == cost_.width ? static_cast<std::size_t>(a.depth) : 1, count = (end - begin) / unit;
    std::vector<double> best(count + 1, 1e30);  // of the first units
    std::vector<std::size_t> from(count + 1, 0);
    best[0] = 0;
    for (std::size_t to = 1; to <= count; ++to) {
      for (std::size_t i = unit == 1 && cost_.columns < cost_.width ? to - 1 : 0; i < to; ++i) {
        const StageGroup group = group_of(a, block, begin + i * unit, begin + to * unit);
        if (made(group) < 16 && to - i > 1) continue;
        const double job = cost_.job(group.taps, static_cast<std::int64_t>(group.last - group.first));
        const double cycles = best[i] + job / std::max(made(group), 1);
        if (cycles >= best[to]) continue;
        best[to] = cycles;
        from[to] = i;
      }
    }
    std::vector<StageGroup> cut;
    for (std::size_t to = count; to > 0; to = from[to]) {
      cut.insert(cut.begin(), group_of(a, block, begin + from[to] * unit, begin + to * unit));
    }
    for (std::size_t i = 0; i < cut.size(); ++i) cut[i].level = static_cast<int>(i);
    cut.back().ends = true;
    groups.insert(groups.end(), cut.begin(), cut.end());
  }

  // Blocks take jobs in turn: the first has the most.
  template <class T>
  double apart(const std::vector<StageGroup>& found, const MrfArgs<T>& a, std::int64_t multiprocessors) const {
    double cycles = kStageLaunch;
    std::int64_t jobs = 0, next = 0;
    for (const StageGroup& group : found) {
      jobs += a.items * ceil_div(a.steps, made(group)) * (cost_.width / cost_.columns);
      const double job = cost_.job(group.taps, static_cast<std::int64_t>(group.last - group.first));
      for (; next < jobs; next += multiprocessors) cycles += job;
    }
    return cycles;
  }

  template <class T>
  double as_one(const MrfArgs<T>& a, std::int64_t multiprocessors) const {
    double job = 0;
    for (const StageGroup& group : groups) {
      if (group.ends) job += cost_.job(group.taps, static_cast<std::int64_t>(group.last - group.first));
    }
    const std::int64_t jobs = a.items * ceil_div(a.steps, std::max(made_together(), 1));
    return made_together() < 16 ? 1e30 : kStageLaunch + static_cast<double>(ceil_div(jobs, multiprocessors)) * job;
  }

  template <class T>
  double mean(const MrfArgs<T>& a) const {
    const double bytes = static_cast<double>(a.items * a.steps * cost_.width) * (8.0 * static_cast<double>(a.layers.size()) + 2);
    return kStageLaunch + bytes / kStageBytes;
  }

 public:
  int lead_together() const {
    int lead = 0;
    for (const StageGroup& group : groups) lead = std::max(lead, group.ends ? group.lead : 0);
    return lead;
  }

  int made_together() const {
    int trail = 0;
    for (const StageGroup& group : groups) trail = std::max(trail, group.ends ? group.trail : 0);
    return cost_.rows - lead_together() - trail;
  }

 private:
  StageCost cost_;
};

// Of a width, the largest first; where tiles are few, jobs with fewer rows or columns keep more multiprocessors at work.
using Stage32 = StageShape<32, 32, 8>;
using HalfStage32 = StageShape<32, 32, 4>;
using SmallStage32 = StageShape<32, 32, 2>;
using Stage64 = StageShape<64, 64, 4>;
using HalfStage64 = StageShape<64, 64, 2>;
using SmallStage64 = StageShape<64, 64, 1>;
using Stage128 = StageShape<128, 128, 2>;
using HalfStage128 = StageShape<128, 128, 1>;
using SmallStage128 = StageShape<128, 64, 1>;
using LeastStage128 = StageShape<128, 32, 1>;
using Stage256 = StageShape<256, 256, 1>;
using SmallStage256 = StageShape<256, 64, 1>;
using LeastStage256 = StageShape<256, 32, 1>;

template <class S, class T>
StagePlan stage_plan(const MrfArgs<T>& a) {
  return {a, {S::kRows, S::kColumns, S::kWidth, a.acts[0].kind == ActKind::kSnake ? 60 : 14}, blocks_at_once()};
}

// Calls run(Shape{}, plan) with that of the shapes which is expected to be the fastest, and returns whether any runs here, which
// does not depend on the size of a call.
template <class... Shapes, class T, class Run>
bool with_fastest(const MrfArgs<T>& a, const Run& run) {
  const StagePlan plans[] = {stage_plan<Shapes>(a)...};
  const int bytes[] = {Shapes::bytes(plans[0].halo)...};
  constexpr std::size_t kCount = sizeof...(Shapes);
  std::size_t best = kCount, i = 0;
  for (std::size_t each = 0; each < kCount; ++each) {
    if (!plans[each].fits || bytes[each] > shared_limit()) continue;
    if (best == kCount || plans[each].cycles < plans[best].cycles) best = each;
  }
  if (best == kCount) return false;
  ((i++ == best ? run(Shapes{}, plans[best]) : void()), ...);
  return true;
}

// The same with the shapes of these channels.
template <class T, class Run>
bool with_stage(const MrfArgs<T>& a, const Run& run) {
  if (!hopper() || a.pad == MrfPad::kReflect || a.layers.size() > kMaxRuns || a.kernels.size() > kMaxChain) return false;
  const ActKind kind = a.acts[0].kind;
  for (const Act& act : a.acts) {
    const bool leaky = act.kind == ActKind::kLeaky && act.slope >= 0.0f && act.slope <= 1.0f;
    if (act.kind != kind || !(leaky || kind == ActKind::kSnake)) return false;
  }
  switch (a.channels > 16 ? tile_width(a.channels) : 0) {
    case 32:
      return kind != ActKind::kSnake && with_fastest<Stage32, HalfStage32, SmallStage32>(a, run);
    case 64:
      return with_fastest<Stage64, HalfStage64, SmallStage64>(a, run);
    case 128:
      return with_fastest<Stage128, HalfStage128, SmallStage128, LeastStage128>(a, run);
    case 256:
      return with_fastest<Stage256, SmallStage256, LeastStage256>(a, run);
    default:
      return false;
  }
}

template <class T>
bool has_stage(const MrfArgs<T>& a) {
  return with_stage(a, [](auto, const StagePlan&) {});
}

// Where what launches hand on lies in the scratch memory, in float32 numbers.
struct StageScratch {
  std::int64_t size;     // of a tensor
  std::int64_t results;  // of blocks or multiprocessors
  std::int64_t handed;   // three bfloat16 tensors of a block
  std::int64_t all;

  template <class T>
  StageScratch(const MrfArgs<T>& a, const StagePlan& plan, int rows) {
    const int width = tile_width(a.channels);
    const auto blocks = static_cast<std::int64_t>(a.layers.size());
    size = a.items * a.steps * width;
    results = plan.together ? blocks_at_once() * rows * width : blocks * size;
    handed = plan.levels > 1 ? 3 * size / 2 : 0;
    all = results + blocks * handed;
  }
};

template <class T>
std::int64_t mrf_stage_scratch(const MrfArgs<T>& a) {
  std::int64_t floats = 0;
  with_stage(a, [&](auto shape, const StagePlan& plan) {
    floats = StageScratch(a, plan, decltype(shape)::kRows).all;
  });
  return floats;
}

template <class S>
void launch_stage(const StageArgs& args, Stream stream) {
  const std::int64_t blocks = std::min<std::int64_t>(args.jobs, blocks_at_once());
  const int bytes = S::bytes(args.halo);
  if constexpr (S::kWidth >= 64) {
    if (args.conv[0].act.kind == ActKind::kSnake) {
      return launch_blocks(stage_kernel<S, ActKind::kSnake>, blocks, 1, kStageThreads, bytes, stream, args);
    }
  }
  launch_blocks(stage_kernel<S, ActKind::kLeaky>, blocks, 1, kStageThreads, bytes, stream, args);
}

// The arguments of a stage's launches in turn; y is [items, steps, channels].
template <class S>
class StageLaunches {
 public:
  StageLaunches(const MrfArgs<BFloat16>& args, const StagePlan& plan)
      : a_(args), plan_(plan), scratch_(args, plan, S::kRows), handed_(args.layers.size()) {}

  StageArgs of_level(int level) {
    StageArgs made{};
    made.x = a_.x;
    made.y = a_.y.data;
    made.sums = a_.scratch;
    made.weight = a_.weight;
    made.bias = a_.bias;
    made.lengths = a_.lengths;
    made.steps = static_cast<int>(a_.steps);
    made.channels = a_.channels;
    made.depth = static_cast<int>(a_.depth);
    made.halo = plan_.halo;
    made.together = plan_.together && level + 1 == plan_.levels;
    made.scale = scale();
    int convs = 0;
    for (const StageGroup& group : plan_.of_level(level)) {
      StageRun& run = made.run[made.runs++];
      run = run_of(group, made.together);
      run.first = convs;
      made.jobs = (made.together ? 0 : made.jobs) + static_cast<int>(a_.items) * run.tiles * (S::kWidth / S::kColumns);
      run.jobs = made.jobs;
      made.odd |= run.convs % 2 != 0;
      for (std::size_t i = group.first; i < group.last; ++i) made.conv[convs++] = conv_of(i);
    }
    return made;
  }

  // What is left to do where runs were apart, or lengths leave steps that no tile makes.
  StageMeanArgs<BFloat16> mean() const {
    const int blocks = plan_.together ? 0 : static_cast<int>(a_.layers.size());
    return {a_.scratch, a_.y.data, a_.lengths, scratch_.size, a_.steps, S::kWidth, a_.channels, blocks, scale()};
  }

 private:
  // What a block hands from launch to launch: the state before the layer at work, null for x, and its input if that has begun.
  struct Handed {
    const BFloat16* state = nullptr;
    const BFloat16* inner = nullptr;
    int states = 0;
  };

  float scale() const { return 1.0f / static_cast<float>(a_.layers.size()); }

  StageConv conv_of(std::size_t i) const {
    std::int64_t taps = 0;
    for (std::size_t c = 0; c < i; ++c) taps += a_.kernels[c];
    return {static_cast<int>(a_.kernels[i]), static_cast<int>(a_.dilations[i]),         a_.left(i),
            static_cast<int>(i),             taps * std::int64_t{S::kWidth} * S::kWidth, a_.acts[i]};
  }

  StageRun run_of(const StageGroup& group, bool together) {
    Handed& handed = handed_[group.block];
    std::size_t begin = 0;
    for (std::size_t b = 0; b < group.block; ++b) begin += static_cast<std::size_t>(a_.layers[b] * a_.depth);
    const auto depth = static_cast<std::size_t>(a_.depth);
    StageRun run{};
    run.convs = static_cast<int>(group.last - group.first);
    run.phase = static_cast<int>((group.first - begin) % depth);
    run.lead = together ? plan_.lead_together() : group.lead;
    run.made = together ? plan_.made_together() : plan_.made(group);
    run.tiles = static_cast<int>(ceil_div(a_.steps, run.made));
    run.activated = handed.inner != nullptr;
    run.in = handed.inner ? handed.inner : handed.state;
    run.state = handed.state;
    if (group.ends) {
      run.partial = a_.scratch + static_cast<std::int64_t>(group.block) * scratch_.size;
      return run;
    }
    auto* const memory = reinterpret_cast<BFloat16*>(
        a_.scratch + scratch_.results + static_cast<std::int64_t>(group.block) * scratch_.handed);
    run.out_act = a_.acts[group.last];
    if ((group.last - begin) % depth == 0) {
      run.out = memory + handed.states++ % 2 * scratch_.size;
      handed.state = run.out;
      handed.inner = nullptr;
    } else {
      run.out = memory + 2 * scratch_.size;
      handed.inner = run.out;
    }
    return run;
  }

  const MrfArgs<BFloat16>& a_;
  const StagePlan& plan_;
  StageScratch scratch_;
  std::vector<Handed> handed_;
};

// The weights are [taps, width / 16, width / 8, 2, 8, 8], the biases [convs, width].
inline void mrf_stage(const MrfArgs<BFloat16>& a, Stream stream) {
  with_stage(a, [&](auto shape, const StagePlan& plan) {
    using S = decltype(shape);
    StageLaunches<S> launches(a, plan);
    for (int level = 0; level < plan.levels; ++level) launch_stage<S>(launches.of_level(level), stream);
    if (!plan.together || a.lengths) {
      launch(stage_mean_kernel<BFloat16>, a.steps * (S::kWidth / 4), a.items, stream, launches.mean());
    }
  });
}

}  // namespace fastvoc::cuda
