// Which instruction set runs, for torch.
#include "glue.h"

namespace fastvoc {
namespace {

int64_t cpu_isa() { return current_isa(); }

int64_t lower_isa(int64_t isa) {
  STD_TORCH_CHECK(isa >= kPortable && isa <= kAvx512Bf16, "limit_isa: unknown instruction set ", isa);
  limit_isa(static_cast<Isa>(isa));
  return cpu_isa();
}

}  // namespace
}  // namespace fastvoc

STABLE_TORCH_LIBRARY_IMPL(_fastvoc, CompositeExplicitAutograd, m) {
  m.impl("cpu_isa", TORCH_BOX(&fastvoc::cpu_isa));
  m.impl("limit_isa", TORCH_BOX(&fastvoc::lower_isa));
}
