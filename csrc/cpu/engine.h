// The kernels built for one instruction set, as tables by what they multiply.
#pragma once

#include <type_traits>

#include "adain_args.h"
#include "attention_block_args.h"
#include "conv1d_args.h"
#include "conv1d_wide_args.h"
#include "conv2d_args.h"
#include "convnext_block_args.h"
#include "convnext_stream_args.h"
#include "depthwise_args.h"
#include "group_norm_act_args.h"
#include "istft_head_args.h"
#include "layer_norm_args.h"
#include "lstm_args.h"
#include "lvc_args.h"
#include "mrf_args.h"
#include "mrf_stream_args.h"
#include "nsf_source_args.h"
#include "resample_args.h"
#include "rvq_args.h"
#include "seanet_block_args.h"
#include "seanet_normed_args.h"
#include "snake_aa_args.h"
#include "stft_args.h"
#include "upsample_args.h"

namespace fastvoc {

// Each computes the output steps [begin, end) of one item.

// The convolutions that multiply elements of one type, and the transformer's layer.
template <class Element>
struct Convolutions {
  using Residual = SourceOf<Outer<Element>>;
  using Result = SinkOf<Outer<Element>>;

  void (*conv1d)(const Conv1dArgs&, const Filter<Element>&, const AnySource&, const Residual* residual, const Result&,
                 std::int64_t begin, std::int64_t end, float* workspace);
  void (*upsample)(const UpsampleArgs&, const Filter<Element>&, const AnySource&, const Result&, std::int64_t begin,
                   std::int64_t end, float* workspace);
  void (*mrf)(const MrfArgs&, const Filter<Element>*, const AnySource&, const Result&, std::int64_t begin, std::int64_t end,
              float* workspace);
  // All steps of one block, as rows of floats.
  void (*mrf_block)(const MrfArgs&, const Filter<Element>*, int block, const AnySource&, float* result, std::int64_t end,
                    float* workspace);
  void (*mrf_stream)(const MrfArgs&, const Filter<Element>*, int block, const MrfChunk<Outer<Element>>&, float* workspace);
  void (*mrf_mean)(const MrfArgs&, const float* results, std::int64_t steps, const Result&, std::int64_t begin,
                   std::int64_t end);
  // All steps of some items.
  void (*attention_block)(const AttentionBlockArgs<Element>&, const AttentionItem<Outer<Element>>*, int count,
                          float* workspace);
};

// Norms over an item's steps, group norms also in seanet_block, of elements of one type.
template <class Element>
struct Norms {
  using Input = SourceOf<Element>;
  using Result = SinkOf<Element>;

  void (*seanet_begin)(const SeanetNormedArgs<Element>&, const Input&, std::int64_t begin, std::int64_t end,
                       const SeanetRows<Element>&, SeanetMoments&, float* workspace);
  void (*seanet_middle)(const SeanetNormedArgs<Element>&, const Moments& hidden, std::int64_t begin, std::int64_t end,
                        const SeanetRows<Element>&, SeanetMoments&, float* workspace);
  void (*seanet_end)(const SeanetNormedArgs<Element>&, const SeanetNorms&, const Input&, const SeanetRows<Element>&,
                     const Result&, std::int64_t begin, std::int64_t end, float* workspace);
  Moments (*moments)(const GroupNormArgs&, const Input&, std::int64_t begin, std::int64_t end, float* workspace);
  void (*group_norm_act)(const GroupNormArgs&, const Moments& item, double eps, const Input&, const Input* residual,
                         const Result&, std::int64_t begin, std::int64_t end, float* workspace);
  void (*adain_moments)(const AdaInArgs&, const Input&, std::int64_t begin, std::int64_t end, const AdaInMoments&,
                        float* workspace);
  void (*adain)(const AdaInArgs&, const AdaInItem&, const Input&, const Result&, std::int64_t begin, std::int64_t end,
                float* workspace);
};

// What computes in elements of one type, float or Bf16.
template <class Element>
struct Kernels {
  using Input = SourceOf<Element>;
  using Result = SinkOf<Element>;

  Convolutions<Element> convolutions;
  Norms<Element> norms;
  void (*lvc)(const LvcArgs&, const LvcKernels<Element>&, const Input&, const Input* residual, const Result&,
              std::int64_t begin, std::int64_t end, float* workspace);
  void (*depthwise)(const DepthwiseArgs&, const Input&, const Result&, std::int64_t begin, std::int64_t end,
                    float* workspace);
  void (*snake_aa)(const SnakeAaArgs&, const Input&, const Result&, std::int64_t begin, std::int64_t end, float* workspace);
  void (*seanet_block)(const SeanetBlockArgs<Element>&, const Input&, const Result&, std::int64_t begin, std::int64_t end,
                       float* workspace);
  // One layer over a group of items, all steps.
  void (*lstm)(const LstmLayer<Element>&, const LstmGroup<Element>&, float* workspace);
  // All layers over a group of items, a few steps, by a crew.
  void (*lstm_shared)(const LstmLayer<Element>*, const LstmGroup<Element>*, int count, CrewMember, float* workspace);
  void (*layer_norm)(const LayerNormArgs&, const Input&, const Result&, std::int64_t begin, std::int64_t end,
                     float* workspace);
  void (*convnext_block)(const ConvNextBlockArgs<Element>&, const Input&, const Result&, std::int64_t begin,
                         std::int64_t end, float* workspace);
};

// What computes in floats alone.
struct FloatKernels {
  void (*conv1d_wide)(const Conv1dWideArgs&, const WideSource&, const WideSource* residual, double* y, std::int64_t begin,
                      std::int64_t end, double* workspace);
  void (*conv2d)(const Conv2dArgs&, const Source&, const Source* residual, const Sink&, std::int64_t begin,
                 std::int64_t end, float* workspace);
  void (*rvq_encode)(const RvqArgs&, const Source&, const Codes<std::int64_t>&, std::int64_t begin, std::int64_t end,
                     float* workspace);
  void (*rvq_decode)(const RvqArgs&, const Codes<const std::int64_t>&, const Sink&, std::int64_t begin, std::int64_t end);
  void (*convnext_stream)(const ConvNextStreamArgs&, const ConvNextChunk&, CrewMember, float* workspace);
  void (*nsf_source)(const NsfSourceArgs&, const NsfItem&, const Sink&, std::int64_t begin, std::int64_t end);
  void (*resample)(const ResampleArgs&, const ResampleSource&, const ResampleSink&, std::int64_t begin, std::int64_t end,
                   float* workspace);
  void (*istft_head)(const IstftHeadArgs&, const AnySource&, const Sink&, std::int64_t begin, std::int64_t end,
                     float* workspace);
  void (*stft)(const StftArgs&, const Source&, const Sink&, std::int64_t begin, std::int64_t end, float* workspace);
};

struct Engine {
  const Kernels<float>& floats;
  const FloatKernels& only_floats;
  const Kernels<Bf16>& halves;
  const Convolutions<std::uint8_t>& bytes;

  template <class Element>
  const Kernels<Element>& kernels() const {
    if constexpr (std::is_same_v<Element, float>) return floats;
    if constexpr (std::is_same_v<Element, Bf16>) return halves;
  }

  template <class Element>
  const Convolutions<Element>& convolutions() const {
    if constexpr (std::is_same_v<Element, std::uint8_t>) {
      return bytes;
    } else {
      return kernels<Element>().convolutions;
    }
  }
};

}  // namespace fastvoc
