// Torch's view of lstm.
#include "glue.h"

#include <algorithm>
#include <numeric>

namespace fastvoc {
namespace {

template <class Element>
std::vector<LstmLayer<Element>> read_layers(const LstmCall& shape) {
  const int64_t width = padded(shape.hidden);
  const int outputs = shape.hidden * shape.directions;
  const int64_t own = grouped<Element>(shape.hidden);
  const int64_t columns = grouped<Element>(shape.inputs) + (shape.layers - 1) * grouped<Element>(outputs) +
                          shape.layers * own;
  const Element* w = packed<Element>(shape.weight, columns * shape.directions * kGates * width, "weight");
  const float* b = packed(shape.bias, shape.layers * shape.directions * kGates * width, "bias");
  std::vector<LstmLayer<Element>> layers;
  for (int l = 0; l < shape.layers; ++l) {
    const int inputs = l ? outputs : shape.inputs;
    for (int d = 0; d < shape.directions; ++d) {
      const Element* w_hh = w + kGates * width * grouped<Element>(inputs);
      layers.push_back({w, w_hh, b, inputs, shape.hidden, d == 1});
      w = w_hh + kGates * width * own;
      b += kGates * width;
    }
  }
  return layers;
}

float* read_state(const MaybeTensor& t, const LstmCall& shape, const char* name) {
  if (!t) return nullptr;
  const int64_t items = shape.x.size(0);
  check_floats(*t, name);
  STD_TORCH_CHECK(t->is_contiguous() && t->numel() == shape.layers * items * shape.hidden, name,
                  ": expected a contiguous [", shape.layers, ", ", items, ", ", shape.hidden, "]");
  return t->mutable_data_ptr<float>();
}

// Deals the items, longest first, to `count` groups in turn.
template <class Element>
std::vector<std::vector<int64_t>> deal(const BatchOf<Element>& batch, int64_t count) {
  std::vector<int64_t> order(static_cast<std::size_t>(batch.items()));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return batch.length(a) > batch.length(b); });
  std::vector<std::vector<int64_t>> groups(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < order.size(); ++i) groups[i % groups.size()].push_back(order[i]);
  return groups;
}

template <class Element>
struct Task {
  const LstmLayer<Element>* layer;
  std::vector<LstmItem<Element>> items;
  LstmGroup<Element> group;
};

// Runs tasks in order, on several threads; each may wait for a task before it, and so never for one that cannot start.
template <class Element>
void run_tasks(std::vector<Task<Element>>& tasks, float* memory) {
  std::vector<float*> spaces;
  for (Task<Element>& task : tasks) {
    task.group.items = task.items.data();
    task.group.count = as_int(static_cast<int64_t>(task.items.size()));
    spaces.push_back(memory);
    memory += workspace_floats(*task.layer, task.group);
  }
  fork_join(static_cast<int64_t>(tasks.size()), torch::stable::get_num_threads(), [&](int64_t i) {
    const auto at = static_cast<std::size_t>(i);
    engine().kernels<Element>().lstm(*tasks[at].layer, tasks[at].group, spaces[at]);
  });
}

template <class Element>
int64_t tasks_floats(const std::vector<Task<Element>>& tasks) {
  int64_t floats = 0;
  for (const Task<Element>& task : tasks) {
    LstmGroup<Element> group = task.group;
    group.items = task.items.data();
    group.count = as_int(static_cast<int64_t>(task.items.size()));
    floats += workspace_floats(*task.layer, group);
  }
  return floats;
}

// One task for each layer, the units of all of them shared out among the threads, whose caches then hold more of the weights than
// where each thread has a layer of its own.
template <class Element>
void run_crew(const std::vector<LstmLayer<Element>>& layers, std::vector<Task<Element>>& tasks, int64_t steps) {
  std::vector<LstmGroup<Element>> groups;
  int64_t floats = 0;
  for (Task<Element>& task : tasks) {
    groups.push_back({task.items.data(), as_int(static_cast<int64_t>(task.items.size())), nullptr, nullptr});
    floats += workspace_floats(*task.layer, groups.back(), lstm_crew_chunk(groups.back()));
  }
  const int64_t waits = steps + 2 * ceil_div(steps, lstm_crew_chunk(groups[0]));
  const int64_t blocks = padded(layers[0].hidden) / kPanelWidth;
  const int64_t threads = torch::stable::get_num_threads();
  const Grant grant(std::min(threads, blocks), threads);
  const int members = as_int(grant.count());
  Crew crew(members, as_int(static_cast<int64_t>(layers.size()) * waits));
  struct Work {
    const std::vector<LstmLayer<Element>>& layers;
    const std::vector<LstmGroup<Element>>& groups;
    Crew& crew;
    float* memory;
  };
  const Work work{layers, groups, crew, Arena::mine().floats(static_cast<std::size_t>(floats))};
  torch_team(members).run(
      members,
      [](const void* state, int i) {
        const Work& w = *static_cast<const Work*>(state);
        const int count = as_int(static_cast<int64_t>(w.layers.size()));
        engine().kernels<Element>().lstm_shared(w.layers.data(), w.groups.data(), count, CrewMember(w.crew, i), w.memory);
      },
      &work);
}

// Multiply-adds of a step that each member of a crew wants between two waits.
constexpr int64_t kCrewWork = 1 << 15;

// Layers of one direction, one behind the other: all but the last leave their output where the next one replaces it, step by
// step. With several threads each layer of a group is a task of its own.
template <class Element>
void run_forward(const LstmCall& shape, const std::vector<LstmLayer<Element>>& layers, const BatchOf<Element>& batch,
                 const OutputOf<Element>& out) {
  float* const h = read_state(shape.h, shape, "h");
  float* const c = read_state(shape.c, shape, "c");
  const int64_t threads = torch::stable::get_num_threads();
  const int64_t work = int64_t{kGates} * shape.hidden * shape.hidden * batch.items();
  const bool crew = threads > 1 && work >= threads * kCrewWork;
  const auto groups = deal(batch, crew ? 1 : std::clamp<int64_t>(threads / shape.layers, 1, batch.items()));
  const bool behind = threads > 1 && shape.layers > 1;
  std::vector<int64_t> done(groups.size() * layers.size());
  std::vector<Task<Element>> tasks;
  for (std::size_t g = 0; g < groups.size(); ++g) {
    for (std::size_t l = 0; l < layers.size(); ++l) {
      Task<Element> task{&layers[l], {}, {}};
      const bool last = l + 1 == layers.size();
      for (int64_t item : groups[g]) {
        const SourceOf<Element> x = batch.source(item);
        const SinkOf<Element> sink = out.sink(item);
        const SourceOf<Element> between{sink.data, shape.hidden, 1, x.steps, shape.hidden};
        const int64_t state = (static_cast<int64_t>(l) * batch.items() + item) * shape.hidden;
        task.items.push_back({l ? between : x, last && shape.skip ? x : SourceOf<Element>{}, sink.data, shape.hidden,
                              h ? h + state : nullptr, h ? c + state : nullptr});
      }
      int64_t* mine = &done[g * layers.size() + l];
      if (behind && !crew) task.group.done = mine;
      if (behind && !crew && l) task.group.before = mine - 1;
      tasks.push_back(std::move(task));
    }
  }
  if (crew) return run_crew(layers, tasks, batch.length(groups[0][0]));
  run_tasks(tasks, Arena::mine().floats(static_cast<std::size_t>(tasks_floats(tasks))));
}

// Layers of two directions: each needs the whole output of the one before.
template <class Element>
void run_both_ways(const LstmCall& shape, const std::vector<LstmLayer<Element>>& layers, const BatchOf<Element>& batch,
                   const OutputOf<Element>& out) {
  const auto groups = deal(batch, std::clamp<int64_t>(torch::stable::get_num_threads() / 2, 1, batch.items()));
  const int width = 2 * shape.hidden;
  const int64_t item_floats = batch.steps() * width;
  std::vector<std::vector<Task<Element>>> rounds;
  std::vector<Element> between(static_cast<std::size_t>(std::min(shape.layers - 1, 2) * batch.items() * item_floats));
  int64_t floats = 0;
  for (int l = 0; l < shape.layers; ++l) {
    const bool last = l + 1 == shape.layers;
    const auto buffer = [&](int layer, int64_t item) {
      return between.data() + (layer % 2 * batch.items() + item) * item_floats;
    };
    std::vector<Task<Element>> tasks;
    for (const auto& group : groups) {
      for (int d = 0; d < 2; ++d) {
        Task<Element> task{&layers[static_cast<std::size_t>(2 * l + d)], {}, {}};
        for (int64_t item : group) {
          const SourceOf<Element> x = batch.source(item);
          const SourceOf<Element> read = l ? SourceOf<Element>{buffer(l - 1, item), width, 1, x.steps, width} : x;
          SourceOf<Element> skip = last && shape.skip ? x : SourceOf<Element>{};
          if (skip.data) skip.data += d * shape.hidden * x.channel;
          Element* y = last ? out.sink(item).data : buffer(l, item);
          task.items.push_back({read, skip, y + d * shape.hidden, width, nullptr, nullptr});
        }
        tasks.push_back(std::move(task));
      }
    }
    floats = std::max(floats, tasks_floats(tasks));
    rounds.push_back(std::move(tasks));
  }
  float* memory = Arena::mine().floats(static_cast<std::size_t>(floats));
  for (auto& tasks : rounds) run_tasks(tasks, memory);
}

template <class Element>
Tensor run(const LstmCall& call) {
  const std::vector<LstmLayer<Element>> layers = read_layers<Element>(call);
  const BatchOf<Element> batch(call.x, call.inputs, call.lengths);
  const OutputOf<Element> out(batch.items(), call.hidden * call.directions, batch.steps());
  if (call.directions == 1) {
    run_forward(call, layers, batch, out);
  } else {
    STD_TORCH_CHECK(!call.h && !call.c, "lstm: both directions keep no state");
    run_both_ways(call, layers, batch, out);
  }
  return out.tensor([&](int64_t item) { return batch.length(item); });
}

Tensor lstm(const LstmCall& call) {
  STD_TORCH_CHECK(call.layers > 0 && call.inputs > 0 && call.hidden > 0 && (call.directions == 1 || call.directions == 2),
                  "lstm: expected positive sizes and 1 or 2 directions");
  STD_TORCH_CHECK(!call.skip || call.inputs == call.hidden * call.directions, "lstm: skip wants as many outputs as inputs");
  STD_TORCH_CHECK(call.h.has_value() == call.c.has_value(), "lstm: expected both h and c or neither");
  STD_TORCH_CHECK(call.x.dim() == 3, "x: expected [B, C, T]");
  return by_type(call.x, [&](auto element) { return run<decltype(element)>(call); });
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CPU, m) { m.impl("lstm", fastvoc::boxed<fastvoc::LstmCall, fastvoc::lstm>); }
