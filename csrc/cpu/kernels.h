// The tables of an instruction set's kernels (engine.h), included by isa_*.cpp behind the header of that set.
#pragma once

#include "adain.h"
#include "attention_block.h"
#include "conv1d.h"
#include "convnext_block.h"
#include "depthwise.h"
#include "group_norm_act.h"
#include "layer_norm.h"
#include "lstm.h"
#include "lvc.h"
#include "mrf.h"
#include "mrf_stream.h"
#include "seanet_block.h"
#include "seanet_normed.h"
#include "snake_aa.h"
#include "upsample.h"

namespace fastvoc::FASTVOC_ISA {

template <class Element>
constexpr Convolutions<Element> convolutions{
    .conv1d = &conv1d<Element>,
    .upsample = &upsample<Element>,
    .mrf = &mrf<Element>,
    .mrf_block = &mrf_block<Element>,
    .mrf_stream = &mrf_stream<Element>,
    .mrf_mean = &mrf_mean<Outer<Element>>,
    .attention_block = &attention_block<Element>,
};

template <class Element>
constexpr Norms<Element> norms{
    .seanet_begin = &seanet_begin<Element>,
    .seanet_middle = &seanet_middle<Element>,
    .seanet_end = &seanet_end<Element>,
    .moments = &moments<Element>,
    .group_norm_act = &group_norm_act<Element>,
    .adain_moments = &adain_moments<Element>,
    .adain = &adain<Element>,
};

template <class Element>
constexpr Kernels<Element> kernels{
    .convolutions = convolutions<Element>,
    .norms = norms<Element>,
    .lvc = &lvc<Element>,
    .depthwise = &depthwise<Element>,
    .snake_aa = &snake_aa<Element>,
    .seanet_block = &seanet_block<Element>,
    .lstm = &lstm<Element>,
    .lstm_shared = &lstm_shared<Element>,
    .layer_norm = &layer_norm<Element>,
    .convnext_block = &convnext_block<Element>,
};

}  // namespace fastvoc::FASTVOC_ISA
