// Torch's view of lstm.
#include "glue.h"

#include <algorithm>
#include <numeric>

namespace fastvoc {
namespace {

struct Shape {
  int layers;
  int inputs;
  int hidden;
  int directions;
  bool skip;
};

std::vector<LstmLayer> read_layers(const Shape& shape, const Tensor& weight, const Tensor& bias) {
  const int64_t width = padded(shape.hidden), outputs = int64_t{1} * shape.hidden * shape.directions;
  const int64_t later = shape.layers - 1;
  const int64_t columns = shape.inputs + later * outputs + int64_t{1} * shape.layers * shape.hidden;
  const float* w = packed(weight, columns * shape.directions * kGates * width, "weight");
  const float* b = packed(bias, shape.layers * shape.directions * kGates * width, "bias");
  std::vector<LstmLayer> layers;
  for (int l = 0; l < shape.layers; ++l) {
    const int inputs = l ? as_int(outputs) : shape.inputs;
    for (int d = 0; d < shape.directions; ++d) {
      const float* w_hh = w + kGates * width * inputs;
      layers.push_back({w, w_hh, b, inputs, shape.hidden, d == 1});
      w = w_hh + kGates * width * shape.hidden;
      b += kGates * width;
    }
  }
  return layers;
}

float* read_state(const std::optional<Tensor>& t, const Shape& shape, int64_t items, const char* name) {
  if (!t) return nullptr;
  check_floats(*t, name);
  STD_TORCH_CHECK(t->is_contiguous() && t->numel() == shape.layers * items * shape.hidden && shape.directions == 1, name,
                  ": expected a contiguous [", shape.layers, ", ", items, ", ", shape.hidden, "]");
  return t->mutable_data_ptr<float>();
}

// Deals the items, longest first, to `count` groups in turn.
std::vector<std::vector<int64_t>> deal(const Batch& batch, int64_t count) {
  std::vector<int64_t> order(static_cast<std::size_t>(batch.items()));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return batch.length(a) > batch.length(b); });
  std::vector<std::vector<int64_t>> groups(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < order.size(); ++i) groups[i % groups.size()].push_back(order[i]);
  return groups;
}

struct Task {
  const LstmLayer* layer;
  std::vector<LstmItem> items;
  LstmGroup group;
};

// Runs tasks in order, on torch's threads; each may wait for a task before it, and so never for one that cannot start.
void run_tasks(std::vector<Task>& tasks, float* memory) {
  std::vector<float*> spaces;
  for (Task& task : tasks) {
    task.group.items = task.items.data();
    task.group.count = as_int(static_cast<int64_t>(task.items.size()));
    spaces.push_back(memory);
    memory += workspace_floats(*task.layer, task.group);
  }
  const Engine& table = engine();
  torch::stable::parallel_for(0, static_cast<int64_t>(tasks.size()), 1, [&](int64_t first, int64_t last) {
    const FlushDenormals flush;
    for (int64_t i = first; i < last; ++i) {
      const auto at = static_cast<std::size_t>(i);
      table.lstm(*tasks[at].layer, tasks[at].group, spaces[at]);
    }
  });
}

int64_t tasks_floats(std::vector<Task>& tasks) {
  int64_t floats = 0;
  for (const Task& task : tasks) {
    LstmGroup group = task.group;
    group.count = as_int(static_cast<int64_t>(task.items.size()));
    floats += workspace_floats(*task.layer, group);
  }
  return floats;
}

// Layers of one direction, one behind the other: all but the last leave their output where the next one replaces it, step by
// step. With several threads each layer of a group is a task of its own.
void run_forward(const Shape& shape, const std::vector<LstmLayer>& layers, const Batch& batch, const Output& out, float* h,
                 float* c) {
  const int64_t threads = torch::stable::get_num_threads();
  const auto groups = deal(batch, std::clamp<int64_t>(threads / shape.layers, 1, batch.items()));
  const bool behind = threads > 1 && shape.layers > 1;
  std::vector<int64_t> done(groups.size() * layers.size());
  std::vector<Task> tasks;
  for (std::size_t g = 0; g < groups.size(); ++g) {
    for (std::size_t l = 0; l < layers.size(); ++l) {
      Task task{&layers[l], {}, {}};
      const bool last = l + 1 == layers.size();
      for (int64_t item : groups[g]) {
        const Source x = batch.source(item);
        const Sink sink = out.sink(item);
        const Source between{sink.data, shape.hidden, 1, x.steps, shape.hidden};
        const int64_t state = (static_cast<int64_t>(l) * batch.items() + item) * shape.hidden;
        task.items.push_back({l ? between : x, last && shape.skip ? x : Source{}, sink.data, shape.hidden,
                              h ? h + state : nullptr, h ? c + state : nullptr});
      }
      int64_t* mine = &done[g * layers.size() + l];
      if (behind) task.group.done = mine;
      if (behind && l) task.group.before = mine - 1;
      tasks.push_back(std::move(task));
    }
  }
  run_tasks(tasks, Arena::mine().floats(static_cast<std::size_t>(tasks_floats(tasks))));
}

// Layers of two directions: each needs the whole output of the one before.
void run_both_ways(const Shape& shape, const std::vector<LstmLayer>& layers, const Batch& batch, const Output& out) {
  const auto groups = deal(batch, std::clamp<int64_t>(torch::stable::get_num_threads() / 2, 1, batch.items()));
  const int width = 2 * shape.hidden;
  const int64_t item_floats = batch.steps() * width;
  std::vector<std::vector<Task>> rounds;
  std::vector<float> between(static_cast<std::size_t>(std::min(shape.layers - 1, 2) * batch.items() * item_floats));
  int64_t floats = 0;
  for (int l = 0; l < shape.layers; ++l) {
    const bool last = l + 1 == shape.layers;
    const auto buffer = [&](int layer, int64_t item) {
      return between.data() + (layer % 2 * batch.items() + item) * item_floats;
    };
    std::vector<Task> tasks;
    for (const auto& group : groups) {
      for (int d = 0; d < 2; ++d) {
        Task task{&layers[static_cast<std::size_t>(2 * l + d)], {}, {}};
        for (int64_t item : group) {
          const Source x = batch.source(item);
          const Source read = l ? Source{buffer(l - 1, item), width, 1, x.steps, width} : x;
          Source skip = last && shape.skip ? x : Source{};
          if (skip.data) skip.data += d * shape.hidden * x.channel;
          float* y = last ? out.sink(item).data : buffer(l, item);
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

Tensor lstm(Tensor x, Tensor weight, Tensor bias, std::optional<Tensor> lengths, std::optional<Tensor> h,
            std::optional<Tensor> c, Ints sizes) {
  STD_TORCH_CHECK(sizes.size() == 5, "lstm: expected 5 shape values");
  const Shape shape{as_int(sizes[0]), as_int(sizes[1]), as_int(sizes[2]), as_int(sizes[3]), sizes[4] != 0};
  STD_TORCH_CHECK(shape.layers > 0 && shape.inputs > 0 && shape.hidden > 0 && (shape.directions == 1 || shape.directions == 2),
                  "lstm: expected positive sizes and 1 or 2 directions");
  STD_TORCH_CHECK(!shape.skip || shape.inputs == shape.hidden * shape.directions, "lstm: skip wants as many outputs as inputs");
  STD_TORCH_CHECK(h.has_value() == c.has_value(), "lstm: expected both h and c or neither");
  const std::vector<LstmLayer> layers = read_layers(shape, weight, bias);
  const Batch batch(x, shape.inputs, lengths);
  float* const h_data = read_state(h, shape, batch.items(), "h");
  float* const c_data = read_state(c, shape, batch.items(), "c");
  const Output out(batch.items(), shape.hidden * shape.directions, batch.steps());
  if (shape.directions == 1) {
    run_forward(shape, layers, batch, out, h_data, c_data);
  } else {
    run_both_ways(shape, layers, batch, out);
  }
  for (int64_t i = 0; i < batch.items(); ++i) out.clear_tail(i, batch.length(i));
  return out.tensor();
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CPU, m) { m.impl("lstm", TORCH_BOX(&fastvoc::lstm)); }
