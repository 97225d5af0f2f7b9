#include "window_loader/bindings.hpp"

#include <nanobind/ndarray.h>
#include <nanobind/stl/array.h>

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "window_loader/batch_memory.hpp"
#include "window_loader/prefetcher.hpp"
#include "window_loader/window_order.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace pyseq {

namespace {

using Places = nb::ndarray<const int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Offsets = nb::ndarray<int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Windows = nb::ndarray<nb::ndim<2>, nb::c_contig, nb::device::cpu>;

nb::dlpack::dtype dtype_of(SymbolType type) {
  switch (type) {
    case SymbolType::kUint16:
      return nb::dtype<uint16_t>();
    case SymbolType::kInt32:
      return nb::dtype<int32_t>();
    case SymbolType::kInt64:
      return nb::dtype<int64_t>();
    case SymbolType::kFloat32:
      return nb::dtype<float>();
  }
  throw nb::type_error("Prefetcher: no such type of symbols");
}

// A Prefetcher that knows what its batches must look like, and has memory for them.
class PrefetcherOfArrays {
 public:
  PrefetcherOfArrays(const SymbolSource& source, const WindowOrder& order, const Batches& batches,
                     int threads, int64_t asked_ahead, int64_t most_kept)
      : batches_(batches),
        memory_(std::make_shared<BatchMemory>(
            batches.share * batches.length * size_of(batches.type), most_kept)),
        prefetcher_(source, order, batches, threads, asked_ahead) {}

  // An array for the windows of a batch; its memory comes back when nobody refers to it any more.
  nb::ndarray<nb::numpy> windows() const {
    struct Owner {
      std::shared_ptr<BatchMemory> memory;
      void* data;
    };
    auto owner = std::make_unique<Owner>(Owner{memory_, memory_->take()});
    const nb::capsule capsule(owner.get(), [](void* given) noexcept {
      const std::unique_ptr<Owner> ended(static_cast<Owner*>(given));
      ended->memory->give_back(ended->data);
    });
    const size_t shape[] = {static_cast<size_t>(batches_.share),
                            static_cast<size_t>(batches_.length)};
    return nb::ndarray<nb::numpy>(owner.release()->data, 2, shape, capsule, nullptr,
                                  dtype_of(batches_.type));
  }

  void submit(const Offsets& offsets, const Windows& windows) {
    const auto share = static_cast<size_t>(batches_.share);
    if (offsets.shape(0) != share || windows.shape(0) != share ||
        windows.shape(1) != static_cast<size_t>(batches_.length) ||
        windows.dtype() != dtype_of(batches_.type)) {
      throw nb::value_error("Prefetcher: offsets or windows of another shape or dtype");
    }
    prefetcher_.submit(offsets.data(), windows.data());
  }

  void take() { prefetcher_.take(); }

  void stop() {
    prefetcher_.stop();
    memory_->keep_none();
  }

 private:
  Batches batches_;
  std::shared_ptr<BatchMemory> memory_;
  Prefetcher prefetcher_;
};

}  // namespace

void bind_window_loader(nb::module_& module) {
  nb::class_<WindowOrder>(module, "WindowOrder")
      .def(nb::init<>())
      .def(nb::init<int64_t, const WindowOrder::Keys&>(), "windows"_a, "keys"_a)
      .def(
          "__init__",
          [](WindowOrder* order, const Places& table) {
            new (order) WindowOrder({table.data(), table.data() + table.shape(0)});
          },
          "table"_a.noconvert())
      .def(
          "windows",
          [](const WindowOrder& order, int64_t first, const Offsets& out) {
            const auto count = static_cast<int64_t>(out.shape(0));
            if (first < 0 || first > order.size() - count) {
              throw nb::index_error("WindowOrder: places beyond the epoch");
            }
            order.windows(first, {out.data(), out.shape(0)});
          },
          "first"_a, "out"_a.noconvert());

  nb::enum_<SymbolType>(module, "SymbolType")
      .value("uint16", SymbolType::kUint16)
      .value("int32", SymbolType::kInt32)
      .value("int64", SymbolType::kInt64)
      .value("float32", SymbolType::kFloat32);
  nb::class_<Batches>(module, "Batches")
      .def(nb::init<int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, SymbolType>(),
           nb::kw_only(), "place"_a, "step"_a, "share"_a, "count"_a, "length"_a, "stride"_a,
           "start"_a, "type"_a);
  nb::class_<PrefetcherOfArrays>(module, "Prefetcher")
      .def(nb::init<const SymbolSource&, const WindowOrder&, const Batches&, int, int64_t,
                    int64_t>(),
           "source"_a, "order"_a, "batches"_a, nb::kw_only(), "threads"_a, "asked_ahead"_a,
           "most_kept"_a, nb::keep_alive<1, 2>())
      .def("windows", &PrefetcherOfArrays::windows)
      .def("submit", &PrefetcherOfArrays::submit, "offsets"_a.noconvert(), "windows"_a.noconvert())
      .def("take", &PrefetcherOfArrays::take, nb::call_guard<nb::gil_scoped_release>())
      .def("stop", &PrefetcherOfArrays::stop, nb::call_guard<nb::gil_scoped_release>());
}

}  // namespace pyseq
