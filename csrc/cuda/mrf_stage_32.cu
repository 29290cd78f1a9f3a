// Launches of mrf's stage kernel of 32 channels.
#include "cuda/mrf_units.cuh"

namespace fastvoc::cuda {

FASTVOC_MRF_STAGE(, Stage32)
FASTVOC_MRF_STAGE(, HalfStage32)
FASTVOC_MRF_STAGE(, SmallStage32)

}  // namespace fastvoc::cuda
