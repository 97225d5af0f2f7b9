// The Python face of the mixture.
#pragma once

#include <nanobind/nanobind.h>

namespace pyseq {

void bind_mixture(nanobind::module_& module);

}  // namespace pyseq
