// Launches of mrf's tiles of 16 to 64 channels.
#include "cuda/mrf_units.cuh"

namespace fastvoc::cuda {

FASTVOC_MRF_TILE(, Tile16)
FASTVOC_MRF_TILE(, Tile32)
FASTVOC_MRF_TILE(, Tile64)

}  // namespace fastvoc::cuda
