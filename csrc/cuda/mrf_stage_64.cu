// Launches of mrf's stage kernel of 64 channels.
#include "cuda/mrf_units.cuh"

namespace fastvoc::cuda {

FASTVOC_MRF_STAGE(, Stage64)
FASTVOC_MRF_STAGE(, HalfStage64)
FASTVOC_MRF_STAGE(, SmallStage64)

}  // namespace fastvoc::cuda
