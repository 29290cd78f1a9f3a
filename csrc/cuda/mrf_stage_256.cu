// Launches of mrf's stage kernel of 256 channels.
#include "cuda/mrf_units.cuh"

namespace fastvoc::cuda {

FASTVOC_MRF_STAGE(, Stage256)
FASTVOC_MRF_STAGE(, SmallStage256)
FASTVOC_MRF_STAGE(, LeastStage256)

}  // namespace fastvoc::cuda
