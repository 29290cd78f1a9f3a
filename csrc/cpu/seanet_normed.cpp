// Torch's view of seanet_block with group norms: three passes over each item, its blocks of steps on torch's threads.
#include "seanet_glue.h"

namespace fastvoc {
namespace {

// Appends what a norm, weight and bias of `width` channels each, multiplies by, and adds to `shift` what it adds.
void fold(const float* norm, int width, const Moments& moments, double eps, std::vector<float>& scale,
          std::vector<double>& shift) {
  const double deviation = norm_deviation(moments, eps);
  for (int c = 0; c < width; ++c) {
    const double factor = static_cast<double>(norm[c]) / deviation;
    scale.push_back(static_cast<float>(factor));
    shift[static_cast<std::size_t>(c)] += static_cast<double>(norm[width + c]) - moments.mean * factor;
  }
}

template <class Element>
class NormedBlock {
 public:
  NormedBlock(const SeanetBlockArgs<Element>& block, const SeanetBlockCall& call) : width_(padded(block.cout)) {
    const Conv1dArgs& conv1 = block.conv1;
    const int hidden = block.hidden(), sides = block.identity ? 1 : 2;
    args_.block = block;
    args_.block.weight1 = packed<Element>(call.weight1, int64_t{1} * hidden * conv1.kernel * block.channels(), "weight1");
    args_.weight2 = packed<Element>(call.weight2, int64_t{1} * width_ * hidden, "weight2");
    args_.bias2 = packed(call.bias2, width_, "bias2");
    const float* norms = packed(*call.norms, 2 * (hidden + sides * width_), "norms");
    args_.norm1 = {norms, norms + hidden, conv1.cout, conv1.post};
    args_.block.conv1.post = Act{};
    norm2_ = norms + 2 * hidden;
    STD_TORCH_CHECK(static_cast<int>(call.eps.size()) == 1 + sides, "eps: expected ", 1 + sides, " values");
    eps_ = call.eps;
    args_.eps = eps_[0];
    STD_TORCH_CHECK(call.shortcut.has_value() != block.identity && call.bias_shortcut.has_value() != block.identity,
                    "seanet_block: expected a shortcut and its bias, or neither and the input itself");
    if (block.identity) return;
    args_.shortcut = packed<Element>(*call.shortcut, int64_t{1} * width_ * block.channels(), "shortcut");
    args_.bias_shortcut = packed(*call.bias_shortcut, width_, "bias_shortcut");
  }

  // Elements that an item of so many steps keeps between the passes.
  int64_t elements(int64_t steps) const { return steps * (args_.block.hidden() + 2 * width_); }

  void run(const SourceOf<Element>& own, const SinkOf<Element>& sink, Element* memory) const {
    std::vector<Element> longer;
    const SourceOf<Element> source = lengthened(own, reflected_steps(args_.block.conv1), longer);
    const SeanetRows<Element> rows{memory, memory + own.steps * args_.block.hidden(),
                          sink.channels == width_ ? sink.data : memory + own.steps * (args_.block.hidden() + width_)};
    const auto& table = engine().kernels<Element>().norms;
    const int64_t step = seanet_steps(args_);
    const int64_t blocks = ceil_div(own.steps, step);
    std::vector<SeanetMoments> parts(static_cast<std::size_t>(blocks));
    const auto each = [&](const auto& work) {
      fork_join(blocks, torch::stable::get_num_threads(), [&](int64_t b) {
        float* space = Arena::mine().floats(static_cast<std::size_t>(workspace_floats(args_)));
        work(b * step, std::min((b + 1) * step, own.steps), parts[static_cast<std::size_t>(b)], space);
      });
    };
    each([&](int64_t begin, int64_t end, SeanetMoments& moments, float* space) {
      table.seanet_begin(args_, source, begin, end, rows, moments, space);
    });
    Moments hidden{}, inner{}, shortcut{};
    for (const SeanetMoments& part : parts) hidden = together(hidden, part.hidden);
    each([&](int64_t begin, int64_t end, SeanetMoments& moments, float* space) {
      table.seanet_middle(args_, hidden, begin, end, rows, moments, space);
    });
    for (const SeanetMoments& part : parts) {
      inner = together(inner, part.inner);
      shortcut = together(shortcut, part.shortcut);
    }
    std::vector<float> scale_inner, scale_shortcut;
    std::vector<double> sums(static_cast<std::size_t>(width_));
    fold(norm2_, width_, inner, eps_[1], scale_inner, sums);
    if (args_.shortcut) {
      fold(norm2_ + 2 * width_, width_, shortcut, eps_[2], scale_shortcut, sums);
    } else {
      scale_shortcut.assign(sums.size(), 1.0f);
    }
    std::vector<float> shift;
    for (double sum : sums) shift.push_back(static_cast<float>(sum));
    each([&](int64_t begin, int64_t end, SeanetMoments&, float* space) {
      table.seanet_end(args_, {scale_inner.data(), scale_shortcut.data(), shift.data()}, source, rows, sink, begin, end, space);
    });
  }

 private:
  SeanetNormedArgs<Element> args_{};
  int width_;
  const float* norm2_;
  std::vector<double> eps_;
};

template <class Element>
Tensor run_normed(const SeanetBlockArgs<Element>& args, const SeanetBlockCall& call) {
  STD_TORCH_CHECK(args.shift == 0 && args.span() - 1 == args.conv1.left + args.conv1.right,
                  "seanet_block: with norms it wants padding that keeps the length");
  const NormedBlock<Element> block(args, call);
  const BatchOf<Element> batch(call.x, args.conv1.cin, call.lengths);
  const OutputOf<Element> out(batch.items(), args.cout, batch.steps());
  const int64_t bytes = block.elements(batch.steps()) * static_cast<int64_t>(sizeof(Element));
  auto* memory = reinterpret_cast<Element*>(Arena::lent().floats(static_cast<std::size_t>(ceil_div(bytes, sizeof(float)))));
  for (int64_t i = 0; i < batch.items(); ++i) block.run(batch.source(i), out.sink(i), memory);
  return out.tensor([&](int64_t item) { return batch.length(item); });
}

}  // namespace

Tensor seanet_block_normed(const SeanetBlockArgs<float>& block, const SeanetBlockCall& call) { return run_normed(block, call); }

Tensor seanet_block_normed(const SeanetBlockArgs<Bf16>& block, const SeanetBlockCall& call) { return run_normed(block, call); }

}  // namespace fastvoc
