#include "randomness/bindings.hpp"

#include <nanobind/ndarray.h>

#include <algorithm>
#include <cstdint>
#include <span>

#include "randomness/lag_information.hpp"
#include "randomness/linear_structure.hpp"
#include "randomness/symbol_pass.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace pyseq {

namespace {

template <typename T>
using Vector = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <typename T>
using Matrix = nb::ndarray<T, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

template <typename T>
std::span<const T> span_of(const Vector<T>& array) {
  return {array.data(), array.shape(0)};
}

// A copy: the pass goes on.
template <typename T>
nb::ndarray<nb::numpy, T> copy_of(std::span<const T> numbers) {
  auto* copy = new T[numbers.size()];
  std::copy(numbers.begin(), numbers.end(), copy);
  const nb::capsule owner(copy, [](void* given) noexcept { delete[] static_cast<T*>(given); });
  return nb::ndarray<nb::numpy, T>(copy, {numbers.size()}, owner);
}

void require_below(std::span<const uint8_t> numbers, int64_t bound, const char* words) {
  const auto above = [bound](uint8_t number) { return number >= bound; };
  if (std::ranges::any_of(numbers, above)) throw nb::value_error(words);
}

// A property's default would tie the array to the pass.
constexpr auto kOwned = nb::rv_policy::automatic;

void bind_pass(nb::module_& module) {
  nb::class_<SymbolPass>(module, "SymbolPass")
      .def(
          "__init__",
          [](SymbolPass* pass, uint16_t threshold, const Vector<uint8_t>& classes) {
            if (classes.shape(0) != SymbolPass::kAlphabet) {
              throw nb::value_error("SymbolPass: classes must be (65536,)");
            }
            require_below(span_of(classes), SymbolPass::kClasses,
                          "SymbolPass: classes must lie in 0..15");
            new (pass) SymbolPass(threshold, span_of(classes));
          },
          "threshold"_a, "classes"_a.noconvert())
      .def(
          "add",
          [](SymbolPass& pass, const Vector<uint16_t>& symbols, int threads) {
            const nb::gil_scoped_release release;
            pass.add(span_of(symbols), threads);
          },
          "symbols"_a.noconvert(), "threads"_a)
      .def("__len__", &SymbolPass::size)
      .def_prop_ro(
          "histogram", [](const SymbolPass& pass) { return copy_of(pass.histogram()); }, kOwned)
      .def_prop_ro(
          "pairs", [](const SymbolPass& pass) { return copy_of(pass.pairs()); }, kOwned)
      .def_prop_ro(
          "gaps", [](const SymbolPass& pass) { return copy_of(pass.gaps()); }, kOwned)
      .def_prop_ro(
          "products", [](const SymbolPass& pass) { return copy_of(pass.products()); }, kOwned)
      .def_prop_ro(
          "equals", [](const SymbolPass& pass) { return copy_of(pass.equals()); }, kOwned)
      .def_prop_ro(
          "first", [](const SymbolPass& pass) { return copy_of(pass.first()); }, kOwned)
      .def_prop_ro(
          "last", [](const SymbolPass& pass) { return copy_of(pass.last()); }, kOwned)
      .def_prop_ro("above", &SymbolPass::above)
      .def_prop_ro("runs", &SymbolPass::runs)
      .def_prop_ro("longest_above", &SymbolPass::longest_above)
      .def_prop_ro("longest_not_above", &SymbolPass::longest_not_above)
      .def_prop_ro("longest_equal", &SymbolPass::longest_equal)
      .def_prop_ro("longest_symbol", &SymbolPass::longest_symbol);
}

}  // namespace

void bind_randomness(nb::module_& module) {
  bind_pass(module);
  module.def(
      "lag_information",
      [](const Vector<uint8_t>& classes, int kinds, const Vector<int64_t>& lags, uint64_t seed,
         const Matrix<double>& out, int threads) {
        const auto count = static_cast<int64_t>(classes.shape(0));
        if (kinds < 1 || kinds > 256) {
          throw nb::value_error("lag_information: kinds must lie in 1..256");
        }
        require_below(span_of(classes), kinds, "lag_information: a class is not below kinds");
        if (out.shape(1) != lags.shape(0)) {
          throw nb::value_error("lag_information: out must have a column for each lag");
        }
        for (const int64_t lag : span_of(lags)) {
          if (lag < 0 || lag > count) {
            throw nb::value_error("lag_information: lags must lie in 0..count");
          }
        }
        const nb::gil_scoped_release release;
        lag_information(span_of(classes), kinds, span_of(lags), seed,
                        static_cast<int64_t>(out.shape(0)), out.data(), threads);
      },
      "classes"_a.noconvert(), "kinds"_a, "lags"_a.noconvert(), "seed"_a, "out"_a.noconvert(),
      "threads"_a);
  module.def(
      "linear_complexity",
      [](const Vector<uint8_t>& bits) {
        const nb::gil_scoped_release release;
        return linear_complexity(span_of(bits));
      },
      "bits"_a.noconvert());
  module.def(
      "binary_ranks",
      [](const Matrix<const uint64_t>& rows,
         const nb::ndarray<int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>& out) {
        const auto matrices = static_cast<int64_t>(out.shape(0));
        if (rows.shape(1) != 1 || static_cast<int64_t>(rows.shape(0)) != matrices * kRankSize) {
          throw nb::value_error("binary_ranks: rows must be (64 * matrices, 1)");
        }
        const nb::gil_scoped_release release;
        for (int64_t m = 0; m < matrices; ++m) {
          out.data()[m] = binary_rank(
              std::span<const uint64_t, kRankSize>(rows.data() + m * kRankSize, kRankSize));
        }
      },
      "rows"_a.noconvert(), "out"_a.noconvert());
}

}  // namespace pyseq
