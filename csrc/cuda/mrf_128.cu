// Launches of mrf's tiles of 128 channels.
#include "cuda/mrf_units.cuh"

namespace fastvoc::cuda {

FASTVOC_MRF_TILE(, Tile128)
FASTVOC_MRF_TILE(, SmallTile128)

}  // namespace fastvoc::cuda
