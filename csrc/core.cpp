// The Python face of csrc/: every function the package calls, and nothing that knows PyTorch.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <cstdint>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "gather_windows/gather_windows.hpp"
#include "gather_windows/symbol_source.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using Symbols = nb::ndarray<const uint16_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Offsets = nb::ndarray<const int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Windows = nb::ndarray<nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using File = std::tuple<int, int64_t, int64_t>;  // descriptor, byte offset, symbols

pyseq::SymbolSource source_in_memory(const std::vector<Symbols>& arrays) {
  std::vector<pyseq::Segment> segments;
  for (const Symbols& array : arrays) {
    segments.push_back({.memory = array.data(), .count = static_cast<int64_t>(array.shape(0))});
  }
  return pyseq::SymbolSource(std::move(segments));
}

pyseq::SymbolSource source_in_files(const std::vector<File>& files) {
  std::vector<pyseq::Segment> segments;
  for (const auto& [descriptor, byte_offset, count] : files) {
    segments.push_back({.descriptor = descriptor, .byte_offset = byte_offset, .count = count});
  }
  return pyseq::SymbolSource(std::move(segments));
}

pyseq::SymbolType symbol_type(const nb::dlpack::dtype& dtype) {
  if (dtype == nb::dtype<uint16_t>()) return pyseq::SymbolType::kUint16;
  if (dtype == nb::dtype<int32_t>()) return pyseq::SymbolType::kInt32;
  if (dtype == nb::dtype<int64_t>()) return pyseq::SymbolType::kInt64;
  if (dtype == nb::dtype<float>()) return pyseq::SymbolType::kFloat32;
  throw nb::type_error("gather_windows: out is none of uint16, int32, int64, float32");
}

void gather_windows(const pyseq::SymbolSource& source, const Offsets& offsets, const Windows& out,
                    int threads) {
  const auto length = static_cast<int64_t>(out.shape(1));
  const std::span<const int64_t> starts(offsets.data(), offsets.shape(0));
  if (starts.size() != out.shape(0)) {
    throw nb::value_error("gather_windows: one offset per row of out");
  }
  for (const int64_t start : starts) {
    // Written so that no sum can overflow.
    if (start < 0 || length > source.size() || start > source.size() - length) {
      const std::string words = "gather_windows: window [" + std::to_string(start) + ", +" +
                                std::to_string(length) + ") leaves the stream of " +
                                std::to_string(source.size()) + " symbols";
      throw nb::index_error(words.c_str());
    }
  }
  const pyseq::SymbolType type = symbol_type(out.dtype());
  const nb::gil_scoped_release release;
  pyseq::gather_windows(source, starts, length, type, out.data(), threads);
}

}  // namespace

NB_MODULE(_core, module) {
  nb::class_<pyseq::SymbolSource>(module, "SymbolSource")
      .def("__len__", &pyseq::SymbolSource::size);
  // noconvert: nanobind would make a converted copy, which nobody reads or keeps alive afterwards.
  // The source reads the arrays in place, so it keeps them alive.
  module.def("source_in_memory", &source_in_memory, "arrays"_a.noconvert(), nb::keep_alive<0, 1>());
  module.def("source_in_files", &source_in_files, "files"_a);
  module.def("gather_windows", &gather_windows, "source"_a, "offsets"_a.noconvert(),
             "out"_a.noconvert(), "threads"_a);
}
