// prepare_keys for one instruction set.
#include "cpu/packed_rows.hpp"
#include "cpu/prepare_row.hpp"
#include "prepare_keys/prepare_keys.hpp"

namespace pyseq::PYSEQ_ISA {

void prepare_keys(const PrepareKeys& x) {
  constexpr int64_t kRowsPerTask = 256;
  constexpr double kPasses = 8;  // of prepare_row over a row
  const int64_t G = x.key.shape[1];
  const int64_t S = x.key.shape[2];
  const int64_t D = x.key.shape[3];
  const int64_t rows = x.key.shape[0] * G * S;
  const int64_t padded = round_up(D, kLanes);
  const int64_t scratch = padded_bytes(padded * int64_t{sizeof(float)});
  const int threads = useful_threads(x.threads, kPasses * double(rows) * double(D));
  const Buffer working(threads * scratch);
  for_ranges((rows + kRowsPerTask - 1) / kRowsPerTask, threads, [&](int64_t task, int worker) {
    auto* row = working.as<float>(worker * scratch);
    memset(row, 0, static_cast<size_t>(scratch));
    const int64_t end = (task + 1) * kRowsPerTask < rows ? (task + 1) * kRowsPerTask : rows;
    for (int64_t i = task * kRowsPerTask; i < end; ++i) {
      const int64_t b = i / S / G;
      const int64_t g = i / S % G;
      const int64_t s = i % S;
      memset(row + D, 0, static_cast<size_t>(padded - D) * sizeof(float));
      load_row(x.key.at(b, g, s), x.key.dtype, x.key.stride[3], D, row);
      prepare_row(row, D, padded, x.prepare, x.position + s);
      store_row(row, x.out.dtype, x.out.stride[3], D, x.out.at(b, g, s));
    }
  });
}

}  // namespace pyseq::PYSEQ_ISA
