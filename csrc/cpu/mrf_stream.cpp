// Torch's view of mrf_stream.
#include "mrf_plan.h"

namespace fastvoc {
namespace {

// The output steps that `steps` more input steps complete for streams that have seen `have`, and their new state. All
// streams of the batch are at the same point; the blocks of a stage are shared out among the threads, or where there are too
// few of them the output channels.
template <class Element>
std::tuple<Tensor, Tensor> run(const MrfPlan& plan, const MrfStreamCall& call) {
  using Given = Outer<Element>;
  const MrfArgs& args = plan.args();
  const int channels = args.channels, width = args.width();
  const int64_t have = call.have;
  const bool last = call.last;
  const auto filters = plan.filters<Element>();
  const BatchOf<Given> batch(call.x, channels, std::nullopt);
  int64_t floats = 0;
  for (int b = 0; b < args.blocks; ++b) floats += mrf_state_floats(args, b);
  const float* before = packed(call.state, batch.items() * floats, "state");
  STD_TORCH_CHECK(have >= 0, "have: expected 0 or more, got ", have);
  const int64_t end = have + batch.steps(), made = std::max<int64_t>(0, have - args.ahead());
  const int64_t count = (last ? end : std::max<int64_t>(0, end - args.ahead())) - made;

  const Tensor after = torch::stable::empty({batch.items(), floats}, torch::headeronly::ScalarType::Float);
  const Tensor results = torch::stable::empty({batch.items(), args.blocks, count, width}, torch::headeronly::ScalarType::Float);
  float* kept = after.mutable_data_ptr<float>();
  float* rows = results.mutable_data_ptr<float>();
  const auto& table = engine().convolutions<Element>();
  const int64_t tasks = batch.items() * args.blocks, threads = torch::stable::get_num_threads();
  const auto one = [&](int64_t task, const Team* team) {
    const int64_t item = task / args.blocks;
    const int block = as_int(task % args.blocks);
    int64_t offset = item * floats;
    for (int b = 0; b < block; ++b) offset += mrf_state_floats(args, b);
    MrfArgs mine = args;
    mine.team = team;
    SourceOf<Given> source = batch.source(item);
    source.data -= have * source.step;
    const MrfChunk<Given> chunk{source,        have, batch.steps(), last, before + offset, kept + offset,
                                rows + task * count * width};
    const int64_t needed = mrf_stream_floats(mine, block, batch.steps(), last);
    table.mrf_stream(mine, filters.data(), block, chunk, Arena::mine().floats(static_cast<std::size_t>(needed)));
  };
  const int64_t parts = std::min<int64_t>(threads, (width / kPanelWidth + 1) / 2);
  if (tasks < parts) {
    const FlushDenormals flush;
    const Team team = torch_team(parts);
    for (int64_t task = 0; task < tasks; ++task) one(task, &team);
  } else {
    fork_join(tasks, threads, [&](int64_t task) { one(task, nullptr); });
  }
  const OutputOf<Given> out(batch.items(), channels, count);
  if (count > 0) {
    over_items(batch.items(), 256, [&](int64_t) { return count; }, [&](int64_t item, int64_t begin, int64_t stop) {
      table.mrf_mean(args, rows + item * args.blocks * count * width, count, out.sink(item), begin, stop);
    });
  }
  return {out.tensor(), after};
}

std::tuple<Tensor, Tensor> mrf_stream(const MrfStreamCall& call) {
  const MrfPlan plan(call);
  return by_element(call.weight, [&](auto element) { return run<decltype(element)>(plan, call); });
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CPU, m) {
  m.impl("mrf_stream", fastvoc::boxed<fastvoc::MrfStreamCall, fastvoc::mrf_stream>);
}
