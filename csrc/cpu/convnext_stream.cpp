// Torch's view of convnext_stream.
#include <utility>

#include "layer_norm_glue.h"

namespace fastvoc {
namespace {

// Rows of all items that run at once: the activations of more would not stay in the caches.
constexpr int64_t kMostRows = 96;

// The packed weights in the order of their use: a tensor for each product, floats or trios, and one of all the small ones.
class Weights {
 public:
  explicit Weights(const std::vector<Tensor>& all) : all_(all) {
    STD_TORCH_CHECK(!all.empty(), "convnext_stream: expected weights");
    left_ = all[0].numel();
    small_ = packed(all[0], left_, "small weights");
  }

  bool trios() const { return all_.size() > 1 && all_[1].scalar_type() == scalar_type<std::int32_t>; }

  template <class Element = float>
  const Element* large(int64_t count) {
    STD_TORCH_CHECK(at_ < all_.size(), "convnext_stream: too few weights");
    return packed<Element>(all_[at_++], count, "weight");
  }
  const float* small(int64_t count) {
    STD_TORCH_CHECK(count <= left_, "convnext_stream: too few small weights");
    left_ -= count;
    return std::exchange(small_, small_ + count);
  }
  Filter<float> filter(int cout, int64_t inputs) { return {large(padded(cout) * inputs), small(padded(cout))}; }
  Trios trio(int inputs, int outputs) {
    const std::int32_t* const words = large<std::int32_t>(trio_words(inputs, outputs));
    const float* const scale = small(padded(outputs));
    return {reinterpret_cast<const std::uint32_t*>(words), scale, small(padded(outputs)), inputs, outputs};
  }
  bool done() const { return at_ == all_.size() && left_ == 0; }

 private:
  const std::vector<Tensor>& all_;
  const float* small_ = nullptr;
  int64_t left_ = 0;
  std::size_t at_ = 1;
};

// A network and the norms of its items.
struct Network {
  ConvNextStreamArgs args{};
  std::vector<ConvNextBlockArgs<float>> blocks;
  std::vector<Trios> trios;
  std::vector<LayerNormArgs> norms;  // by layer and item
  std::vector<LayerNormArgs> some;   // those of the items of a call

  Network(const ConvnextStreamCall& call, int64_t items) {
    const std::size_t count = call.hidden.size();
    STD_TORCH_CHECK(call.kernels.size() == count && call.chunks.size() == count && call.eps.size() == count + 2,
                    "convnext_stream: expected a kernel, a chunk and an eps for each block, and two for the norms around them");
    args.cin = call.cin;
    args.kernel = call.kernel;
    args.channels = call.channels;
    args.out = call.out;
    args.count = as_int(static_cast<int64_t>(count));
    const int64_t rows = call.rows;
    const MaybeTensor& row = call.row;
    const Doubles& eps = call.eps;
    STD_TORCH_CHECK(args.cin > 0 && args.channels > 0 && args.out > 0 && rows > 0 && args.kernel % 2 == 1,
                    "convnext_stream: expected channels and odd kernels");
    Weights next(call.weights);
    const int64_t width = padded(args.channels);
    const bool in_trios = next.trios();
    if (in_trios) {
      STD_TORCH_CHECK(args.kernel < 1 << 10 && args.cin < 1 << 20, "convnext_stream: expected a smaller convolution");
      trios.push_back(next.trio(args.window(), args.channels));
    } else {
      args.embed = next.filter(args.channels, int64_t{args.cin} * args.kernel);
    }
    add_norm(next, rows, row, items, eps[0]);
    for (std::size_t b = 0; b < count; ++b) {
      ConvNextBlockArgs<float> block{};
      block.channels = args.channels;
      block.hidden = as_int(call.hidden[b]);
      block.kernel = as_int(call.kernels[b]);
      block.chunk = as_int(call.chunks[b]);
      STD_TORCH_CHECK(block.hidden > 0 && block.kernel % 2 == 1 && block.chunk > 0 && block.chunk % kPanelWidth == 0,
                      "convnext_stream: expected odd kernels and whole panels of hidden channels");
      block.depthwise = next.small((block.kernel + 1) * width);
      add_norm(next, rows, row, items, eps[b + 1]);
      if (in_trios) {
        trios.push_back(next.trio(args.channels, block.hidden));
        trios.push_back(next.trio(block.hidden, args.channels));
      } else {
        block.weight = next.large(block.weights());
        block.expand_bias = next.small(padded(block.hidden));
        block.project_bias = next.small(width);
      }
      blocks.push_back(block);
    }
    add_norm(next, 1, std::nullopt, items, eps.back());
    if (in_trios) {
      trios.push_back(next.trio(args.channels, args.out));
    } else {
      args.head = next.filter(args.out, args.channels);
    }
    STD_TORCH_CHECK(next.done(), "convnext_stream: too many weights");
    args.blocks = blocks.data();
    args.trios = in_trios ? trios.data() : nullptr;
  }

  // For the items [first, first + count) of `items`.
  const ConvNextStreamArgs& of(int64_t first, int64_t count, int64_t items) {
    some.clear();
    for (int64_t layer = 0; layer < args.count + 2; ++layer) {
      const auto begin = norms.begin() + layer * items + first;
      some.insert(some.end(), begin, begin + count);
    }
    args.norms = some.data();
    args.items = as_int(count);
    return args;
  }

 private:
  void add_norm(Weights& next, int64_t count, const MaybeTensor& row, int64_t items, double eps) {
    const int64_t floats = count * padded(args.channels);
    const float* const weight = next.small(floats);
    const NormRows rows(weight, next.small(floats), count, row, items, args.channels, eps);
    for (int64_t i = 0; i < items; ++i) norms.push_back(rows.item(i));
  }
};

void run(const ConvNextStreamArgs& args, const ConvNextChunk& chunk) {
  const FlushDenormals flush;
  float* memory = Arena::mine().floats(static_cast<std::size_t>(workspace_floats(args, chunk)));
  const int64_t threads = torch::stable::get_num_threads();
  const Grant grant(std::min<int64_t>(threads, (padded(args.channels) / kPanelWidth + 1) / 2), threads);
  const int64_t parts = grant.count();
  Crew crew(as_int(parts), args.phases());
  struct Work {
    const ConvNextStreamArgs& args;
    const ConvNextChunk& chunk;
    Crew& crew;
    float* memory;
  };
  const Work work{args, chunk, crew, memory};
  const auto member = [](const void* state, int i) {
    const Work& w = *static_cast<const Work*>(state);
    engine().only_floats.convnext_stream(w.args, w.chunk, CrewMember(w.crew, i), w.memory);
  };
  if (parts == 1) return member(&work, 0);
  torch_team(parts).run(as_int(parts), member, &work);
}

std::tuple<Tensor, Tensor> convnext_stream(const ConvnextStreamCall& call) {
  const Tensor& x = call.x;
  const int64_t have = call.have;
  const bool last = call.last;
  STD_TORCH_CHECK(x.dim() == 3 && have >= 0, "convnext_stream: expected x [B, C, T] and have of 0 or more");
  const int64_t items = x.size(0), steps = x.size(2);
  Network network(call, items);
  const Batch batch(x, network.args.cin, std::nullopt);
  const int64_t floats = network.args.state_floats(), delay = network.args.delay(network.args.count + 1);
  const float* before = packed(call.state, items * floats, "state");
  const Tensor after = torch::stable::empty({items, floats}, torch::headeronly::ScalarType::Float);
  const int64_t made = std::max<int64_t>(0, have - delay);
  const Output out(items, network.args.out, (last ? have + steps : std::max<int64_t>(0, have + steps - delay)) - made);
  float* kept = after.mutable_data_ptr<float>();

  const int64_t once = std::clamp<int64_t>(kMostRows / std::max<int64_t>(steps, 1), 1, std::max<int64_t>(items, 1));
  std::vector<float> between;
  for (int64_t first = 0; first < items; first += once) {
    const int64_t count = std::min(once, items - first);
    const ConvNextStreamArgs& args = network.of(first, count, items);
    const float* from = before + first * floats;
    // A chunk of many steps runs in several of a few; only then is there one item at a time.
    int64_t begin = 0;
    do {
      const int64_t end = std::min(begin + kMostRows, steps);
      ConvNextChunk chunk{nullptr, have + begin, end - begin, last && end == steps, from, kept + first * floats, nullptr};
      std::vector<Source> sources;
      std::vector<Sink> sinks;
      for (int64_t i = first; i < first + count; ++i) {
        Source source = batch.source(i);
        source.data += begin * source.step;
        sources.push_back(source);
        Sink sink = out.sink(i);
        sink.data += (std::max<int64_t>(0, have + begin - delay) - made) * sink.channels;
        sinks.push_back(sink);
      }
      chunk.sources = sources.data();
      chunk.sinks = sinks.data();
      run(args, chunk);
      if (end < steps) {
        between.assign(chunk.after, chunk.after + floats);
        from = between.data();
      }
      begin = end;
    } while (begin < steps);
  }
  return {out.tensor(), after};
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CPU, m) {
  m.impl("convnext_stream", fastvoc::boxed<fastvoc::ConvnextStreamCall, fastvoc::convnext_stream>);
}
