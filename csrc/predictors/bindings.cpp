#include "predictors/bindings.hpp"

#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <tuple>

#include "predictors/predictor.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace pyseq {

namespace {

using Array = nb::ndarray<const uint16_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Counts = nb::ndarray<int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

predictors::Symbols symbols_of(const Array& array) { return {array.data(), array.shape(0)}; }

void want(size_t fewest, const std::string& name, predictors::Symbols symbols) {
  if (symbols.size() >= fewest) return;
  const std::string words = "Predictor: " + name + " wants " + std::to_string(fewest) +
                            " symbols; symbols (" + std::to_string(symbols.size()) + ",)";
  throw nb::value_error(words.c_str());
}

std::unique_ptr<predictors::Predictor> predictor_named(const std::string& name,
                                                       predictors::Symbols symbols,
                                                       int64_t alphabet, int64_t memory) {
  if (name == "MultiMCW") {
    want(64, name, symbols);
    return predictors::multi_mcw(symbols, alphabet);
  }
  if (name == "Lag") {
    want(2, name, symbols);
    return predictors::lag(symbols, alphabet);
  }
  if (name == "MultiMMC") {
    want(3, name, symbols);
    return predictors::multi_mmc(symbols, alphabet, memory);
  }
  if (name == "LZ78Y") {
    want(18, name, symbols);
    return predictors::lz78y(symbols, alphabet, memory);
  }
  throw nb::value_error("Predictor: none of MultiMCW, Lag, MultiMMC, LZ78Y");
}

// A predictor that keeps the array it reads alive.
class PredictorOfArray {
 public:
  PredictorOfArray(const std::string& name, const Array& array, int64_t alphabet, int64_t memory)
      : array_(array) {
    const predictors::Symbols symbols = symbols_of(array);
    if (alphabet < 1 || alphabet > 65536) {
      throw nb::value_error("Predictor: an alphabet beyond 1 to 65536");
    }
    if (!std::all_of(symbols.begin(), symbols.end(), [=](int64_t s) { return s < alphabet; })) {
      throw nb::value_error("Predictor: a symbol beyond the alphabet");
    }
    predictor_ = predictor_named(name, symbols, alphabet, memory);
  }

  int64_t advance(int64_t count) {
    if (count < 0) throw nb::value_error("Predictor: a count below 0");
    const nb::gil_scoped_release release;
    return predictor_->advance(count);
  }

  std::tuple<int64_t, int64_t> score() const {
    return {predictor_->score().correct, predictor_->score().longest_run};
  }

  int64_t full_at() const { return predictor_->full_at(); }

 private:
  Array array_;
  std::unique_ptr<predictors::Predictor> predictor_;
};

void count_equal_at_lags(const Array& symbols, const Counts& equal) {
  const std::span<int64_t> counts(equal.data(), equal.shape(0));
  const nb::gil_scoped_release release;
  predictors::count_equal_at_lags(symbols_of(symbols), counts);
}

}  // namespace

void bind_predictors(nb::module_& module) {
  nb::class_<PredictorOfArray>(module, "Predictor")
      .def(nb::init<const std::string&, const Array&, int64_t, int64_t>(), "name"_a,
           "symbols"_a.noconvert(), nb::kw_only(), "alphabet"_a, "memory"_a)
      .def("advance", &PredictorOfArray::advance, "count"_a)
      .def("score", &PredictorOfArray::score)
      .def("full_at", &PredictorOfArray::full_at);
  module.def("count_equal_at_lags", &count_equal_at_lags, "symbols"_a.noconvert(),
             "equal"_a.noconvert());
}

}  // namespace pyseq
