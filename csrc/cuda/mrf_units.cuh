// The launches of mrf's tiles are compiled in units by width, side by side: together they would take minutes.
#pragma once

#include "cuda/mrf_stages.cuh"
#include "cuda/mrf_tiles.cuh"

// Its launches in both types: in this unit, or with `extern` in another.
#define FASTVOC_MRF_TILE(elsewhere, Tile)                                                             \
  elsewhere template void launch_chain<Half, Tile>(const ChainArgs<Half>&, std::int64_t, Stream); \
  elsewhere template void launch_chain<BFloat16, Tile>(const ChainArgs<BFloat16>&, std::int64_t, Stream);

// The same of Hopper's stage kernel.
#define FASTVOC_MRF_STAGE(elsewhere, Shape) elsewhere template void launch_stage<Shape>(const StageArgs&, Stream);
