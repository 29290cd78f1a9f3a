// Launches of mrf's tiles of 256 channels where shared memory is scarce.
#include "cuda/mrf_units.cuh"

namespace fastvoc::cuda {

FASTVOC_MRF_TILE(, SmallTile256)

}  // namespace fastvoc::cuda
