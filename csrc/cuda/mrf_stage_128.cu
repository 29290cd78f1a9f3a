// Launches of mrf's stage kernel of 128 channels.
#include "cuda/mrf_units.cuh"

namespace fastvoc::cuda {

FASTVOC_MRF_STAGE(, Stage128)
FASTVOC_MRF_STAGE(, HalfStage128)
FASTVOC_MRF_STAGE(, SmallStage128)
FASTVOC_MRF_STAGE(, LeastStage128)

}  // namespace fastvoc::cuda
