#include "mixture/bindings.hpp"

#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cstdint>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "mixture/mixture.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace pyseq {

namespace {

using Symbols = nb::ndarray<const uint16_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Numbers = nb::ndarray<double, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Flags = nb::ndarray<bool, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

uint32_t checked(int64_t alphabet) {
  if (alphabet < 1 || alphabet > 65536) {
    const std::string words =
        "Mixture: alphabet " + std::to_string(alphabet) + "; it must lie in 1..65536";
    throw nb::value_error(words.c_str());
  }
  return static_cast<uint32_t>(alphabet);
}

// One mixture, which threads use in turn.
class MixtureOfArrays {
 public:
  explicit MixtureOfArrays(int64_t alphabet) : mixture_(checked(alphabet)) {}

  // Nothing is scored unless everything can be.
  void score(const Symbols& symbols, const Numbers& bits, const Flags& hits) {
    const std::span<const uint16_t> given(symbols.data(), symbols.shape(0));
    if (bits.shape(0) != given.size() || hits.shape(0) != given.size()) {
      const std::string words = "Mixture: one entry of bits and hits per symbol; symbols (" +
                                std::to_string(given.size()) + ",), bits (" +
                                std::to_string(bits.shape(0)) + ",), hits (" +
                                std::to_string(hits.shape(0)) + ",)";
      throw nb::value_error(words.c_str());
    }
    const uint32_t alphabet = mixture_.alphabet();
    const auto beyond = std::find_if(given.begin(), given.end(),
                                     [alphabet](uint16_t symbol) { return symbol >= alphabet; });
    if (beyond != given.end()) {
      const std::string words = "Mixture: symbol " + std::to_string(*beyond) + " at " +
                                std::to_string(beyond - given.begin()) +
                                "; symbols of an alphabet of " + std::to_string(alphabet) +
                                " lie in 0.." + std::to_string(alphabet - 1);
      throw nb::value_error(words.c_str());
    }
    const nb::gil_scoped_release release;
    const std::scoped_lock lock(mutex_);
    mixture_.score(given, {bits.data(), given.size()}, {hits.data(), given.size()});
  }

  void probabilities(const Numbers& out) {
    if (out.shape(0) != mixture_.alphabet()) {
      const std::string words = "Mixture: out has " + std::to_string(out.shape(0)) +
                                " entries; there are " + std::to_string(mixture_.alphabet()) +
                                " symbols";
      throw nb::value_error(words.c_str());
    }
    const nb::gil_scoped_release release;
    const std::scoped_lock lock(mutex_);
    mixture_.probabilities({out.data(), out.shape(0)});
  }

  std::vector<double> weights() {
    const nb::gil_scoped_release release;
    const std::scoped_lock lock(mutex_);
    return {mixture_.weights().begin(), mixture_.weights().end()};
  }

  std::vector<double> weight_sums() {
    const nb::gil_scoped_release release;
    const std::scoped_lock lock(mutex_);
    return {mixture_.weight_sums().begin(), mixture_.weight_sums().end()};
  }

  const std::vector<std::string>& names() const { return mixture_.names(); }

 private:
  std::mutex mutex_;
  Mixture mixture_;
};

}  // namespace

void bind_mixture(nb::module_& module) {
  nb::class_<MixtureOfArrays>(module, "Mixture")
      .def(nb::init<int64_t>(), "alphabet"_a)
      .def("score", &MixtureOfArrays::score, "symbols"_a.noconvert(), "bits"_a.noconvert(),
           "hits"_a.noconvert())
      .def("probabilities", &MixtureOfArrays::probabilities, "out"_a.noconvert())
      .def("names", &MixtureOfArrays::names)
      .def("weights", &MixtureOfArrays::weights)
      .def("weight_sums", &MixtureOfArrays::weight_sums);
}

}  // namespace pyseq
