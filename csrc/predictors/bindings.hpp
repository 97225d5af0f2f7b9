// The predictors of SP 800-90B, and how often symbols repeat at each lag.
#pragma once

#include <nanobind/nanobind.h>

namespace pyseq {

void bind_predictors(nanobind::module_& module);

}  // namespace pyseq
