// What the tests of randomness have of native code.
#pragma once

#include <nanobind/nanobind.h>

namespace pyseq {

void bind_randomness(nanobind::module_& module);

}  // namespace pyseq
