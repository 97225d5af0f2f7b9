// prepare_keys and its gradients for one instruction set.
#include "cpu/packed_rows.hpp"
#include "cpu/prepare_row.hpp"
#include "prepare_keys/prepare_keys.hpp"

namespace pyseq::PYSEQ_ISA {

namespace {

constexpr int64_t kRowsPerTask = 256;

// The rows of a tensor (B, G, S, D), as tasks of so many each.
struct KeyRows {
  explicit KeyRows(const Tensor& key)
      : G(key.shape[1]),
        S(key.shape[2]),
        D(key.shape[3]),
        rows(key.shape[0] * G * S),
        padded(round_up(D, kLanes)) {}

  int64_t tasks() const { return (rows + kRowsPerTask - 1) / kRowsPerTask; }

  // Calls body(task, b, g, s, memory) for every row, the rows of a task in their order. Memory is
  // `count` times `padded` floats, of which each row's last are zero: the first D are body's.
  template <typename Body>
  void visit(int threads, double passes, int64_t count, const Body& body) const {
    const int64_t scratch = padded_bytes(count * padded * int64_t{sizeof(float)});
    threads = useful_threads(threads, passes * double(rows) * double(D));
    const Buffer working(threads * scratch);
    for_ranges(tasks(), threads, [&](int64_t task, int worker) {
      auto* memory = working.as<float>(worker * scratch);
      memset(memory, 0, static_cast<size_t>(scratch));
      for (int64_t i = task * kRowsPerTask; i < smaller((task + 1) * kRowsPerTask, rows); ++i) {
        for (int64_t n = 0; n < count; ++n) {
          memset(memory + n * padded + D, 0, static_cast<size_t>(padded - D) * sizeof(float));
        }
        body(task, i / S / G, i / S % G, i % S, memory);
      }
    });
  }

  int64_t G, S, D, rows, padded;
};

}  // namespace

void prepare_keys(const PrepareKeys& x) {
  constexpr double kPasses = 8;  // of prepare_row over a row
  const KeyRows of(x.key);
  of.visit(x.threads, kPasses, 1, [&](int64_t, int64_t b, int64_t g, int64_t s, float* row) {
    load_row(x.key.at(b, g, s), x.key.dtype, x.key.stride[3], of.D, row);
    prepare_row(row, of.D, of.padded, x.prepare, x.position + s);
    store_row(row, x.out.dtype, x.out.stride[3], of.D, x.out.at(b, g, s));
  });
}

void prepare_keys_backward(const PrepareKeysBackward& x) {
  constexpr double kPasses = 20;
  const KeyRows of(x.key);
  const int64_t D = of.D;
  const int64_t padded = of.padded;
  const bool wants_gain = x.grad_gain.data != nullptr;
  const int64_t part_bytes = of.tasks() * padded * int64_t{sizeof(float)};
  const Buffer parts(part_bytes);  // of the gain's gradient, by task
  memset(parts.as<float>(), 0, static_cast<size_t>(part_bytes));
  of.visit(x.threads, kPasses, 2, [&](int64_t task, int64_t b, int64_t g, int64_t s, float* found) {
    float* unit = found + padded;
    load_row(x.grad.at(b, g, s), x.grad.dtype, x.grad.stride[3], D, found);
    rotate_row<true>(found, D, x.prepare, x.position + s);
    load_row(x.key.at(b, g, s), x.key.dtype, x.key.stride[3], D, unit);
    const float factor = normalise_row(unit, D, padded, x.prepare);
    // A key that is not finite whatever the gain has no share in the gain's gradient.
    if (wants_gain && all_finite(unit, padded)) {
      float* part = parts.as<float>() + task * padded;
      for (int64_t i = 0; i < padded; i += kLanes) {
        store(part + i, load(part + i) + load(found + i) * load(unit + i));
      }
    }
    if (x.grad_key.data == nullptr) return;
    multiply_by_gain(found, D, x.prepare);
    through_norm(found, unit, factor, D, padded, x.prepare);
    store_row(found, x.grad_key.dtype, x.grad_key.stride[3], D, x.grad_key.at(b, g, s));
  });
  for (int64_t d = 0; wants_gain && d < D; ++d) {
    double total = 0;
    for (int64_t task = 0; task < of.tasks(); ++task) {
      total += double{parts.as<float>()[task * padded + d]};
    }
    *reinterpret_cast<float*>(x.grad_gain.at(d)) = static_cast<float>(total);
  }
}

}  // namespace pyseq::PYSEQ_ISA
