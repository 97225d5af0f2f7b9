// What the loader has of native code: the order of windows, and batches gathered ahead.
#pragma once

#include <nanobind/nanobind.h>

namespace pyseq {

void bind_window_loader(nanobind::module_& module);

}  // namespace pyseq
