// Stands in for torch's header: there is one device.
#pragma once

#include <cstdint>

namespace torch::stable::accelerator {

struct DeviceGuard {
  explicit DeviceGuard(std::int32_t) {}
};

}  // namespace torch::stable::accelerator
