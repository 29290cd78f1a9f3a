// Launches of mrf's tiles of 256 channels.
#include "cuda/mrf_units.cuh"

namespace fastvoc::cuda {

FASTVOC_MRF_TILE(, Tile256)

}  // namespace fastvoc::cuda
