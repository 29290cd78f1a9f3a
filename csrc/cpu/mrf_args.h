// What the glue hands to mrf.
#pragma once

#include "toom_cook_args.h"

namespace fastvoc {

constexpr int kMaxBlocks = 16;
constexpr int kMaxConvs = 32;  // of one block

// How the convolutions pad: half on either side, or zeros before the first step only.
enum class MrfPad : int { kZeros = 0, kReflect = 1, kCausal = 2 };  // the numbers of fastvoc/ops/mrf.py

// One convolution of a residual block, but for its weights; `back` and `ahead` are the sums of the paddings on the left and on the right of the
// convolutions after it in its block.
struct MrfConv {
  ToomCook shape;
  int left;
  int right;
  int back;
  int ahead;
  Act act;  // before it

  bool depthwise() const { return shape.scheme == Scheme::kDepthwise; }
  bool direct() const { return shape.scheme == Scheme::kDirect || depthwise(); }
  // Outputs are made in whole blocks from a multiple of it on, and read so far beyond the last one.
  int block() const { return direct() ? 1 : shape.block(); }
  int beyond() const { return right + (direct() ? 0 : shape.extra()); }
};

struct MrfArgs {
  const MrfConv* convs;
  const int* block_begin;  // index of each block's first convolution, and the total at the end
  int blocks;
  int depth;
  int channels;
  bool reflect;
  int granule;  // where ranges and strips of outputs may begin: at multiples of it
  const Team* team = nullptr;

  // Elements of a row of the strips.
  int width() const { return narrow_width(channels); }

  // Whether all blocks begin with the same activation of the stage's input and the same padding, so that they share both.
  bool shares_input() const {
    const auto same = [&](const Act& a, const Act& b) {
      return a.kind == ActKind::kLeaky && b.kind == a.kind && b.slope == a.slope && b.steps == a.steps && b.zero == a.zero;
    };
    bool shared = blocks > 1 && !reflect;
    for (int b = 0; b < blocks; ++b) shared = shared && same(convs[0].act, convs[block_begin[b]].act);
    return shared;
  }

  // Steps that a block sees after an output step.
  int ahead(int block) const {
    const MrfConv& first = convs[block_begin[block]];
    return first.right + first.ahead;
  }

  // The same for the block that sees farthest.
  int ahead() const {
    int farthest = 0;
    for (int b = 0; b < blocks; ++b) farthest = std::max(farthest, ahead(b));
    return farthest;
  }

  // Steps that a block sees beside an output step, on both sides together.
  int around(int block) const {
    const MrfConv& first = convs[block_begin[block]];
    return first.left + first.back + ahead(block);
  }

  // The same for the block that sees most.
  int around() const {
    int most = 0;
    for (int b = 0; b < blocks; ++b) most = std::max(most, around(b));
    return most;
  }

  // At most the steps by which whole blocks make a layer run ahead of what is needed.
  int slack(int block) const {
    int steps = 0;
    for (int l = block_begin[block]; l < block_begin[block + 1]; ++l) steps += convs[l].block();
    return steps;
  }

  // At least the steps that the layers of a block begin early and run ahead, together.
  int lead(int block) const {
    int steps = 2 * slack(block);
    for (int l = block_begin[block]; l < block_begin[block + 1]; ++l) steps += convs[l].left + convs[l].beyond();
    return steps;
  }
};

}  // namespace fastvoc
