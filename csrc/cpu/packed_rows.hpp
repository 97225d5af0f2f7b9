// The operands of an attention: rows of queries, keys and values, padded and packed for an engine.
#pragma once

#include "cpu/parallel.hpp"
#include "cpu/product.hpp"

namespace pyseq::PYSEQ_ISA {

// Calls body(task, worker) for every task, as run_tasks does.
template <typename Body>
void for_tasks(int64_t tasks, int threads, const Body& body) {
  const auto call = [](void* context, int64_t task, int worker) {
    (*static_cast<const Body*>(context))(task, worker);
  };
  run_tasks(tasks, threads, call, const_cast<Body*>(&body));
}

// The same, but each thread has a range of its own to begin with: what it writes lies in other
// pages than what the others write, which the system can then clear at the same time.
template <typename Body>
void for_ranges(int64_t tasks, int threads, const Body& body) {
  const int64_t each = (tasks + threads - 1) / threads;
  for_tasks(each * threads, threads, [&](int64_t i, int worker) {
    const int64_t task = i % threads * each + i / threads;
    if (task < tasks) body(task, worker);
  });
}

// Threads worth waking for so many multiply-adds: a parallel region costs up to 100 microseconds.
inline int useful_threads(int threads, double multiply_adds) {
  constexpr double kWorthAThread = 1 << 20;
  const double useful = multiply_adds / kWorthAThread;
  return useful >= threads ? threads : useful < 1 ? 1 : static_cast<int>(useful);
}

// What lies between threads' buffers, so that none shares a cache line with another's.
constexpr int64_t padded_bytes(int64_t bytes) { return round_up(bytes, 64); }

// Panels or pairs of rows that one task packs.
inline constexpr int64_t kPanelsPerTask = 8;

// Rows of S keys with D features, of every key head, as columns: for products along D.
template <typename Engine>
struct Columns {
  using Element = typename Engine::Element;

  int64_t S, D;
  int64_t depth = round_up(D, Engine::kColumns);  // so that rows are whole vectors too
  int64_t panels = (S + Engine::kColumns - 1) / Engine::kColumns;
  int64_t panel = depth * Engine::kColumns;
  int64_t plane = panels * panel;
  int64_t head = Engine::kPlanes * plane;                          // elements of a key head
  int64_t tasks = (panels + kPanelsPerTask - 1) / kPanelsPerTask;  // of a key head

  // Of a thread that packs.
  int64_t scratch_bytes() const { return panel * (int64_t{sizeof(float)} + 2 * Engine::kPlanes); }

  // Packs the rows of one task; load(s, row) writes the D features of row s.
  template <typename Load>
  void pack(int64_t task, Element* head_data, float* scratch, const Load& load_into) const {
    memset(scratch, 0, static_cast<size_t>(panel) * sizeof(float));
    for (int64_t p = task * kPanelsPerTask; p < (task + 1) * kPanelsPerTask && p < panels; ++p) {
      for (int64_t j = 0; j < Engine::kColumns; ++j) {
        const int64_t s = p * Engine::kColumns + j;
        float* row = scratch + j * depth;
        if (s < S) {
          load_into(s, row);
        } else {
          memset(row, 0, static_cast<size_t>(depth) * sizeof(float));
        }
      }
      Engine::pack_columns(scratch, depth, depth, head_data + p * panel, plane,
                           reinterpret_cast<uint16_t*>(scratch + panel));
    }
  }

  Panels<Element> from(const Element* head_data, int64_t first_key) const {
    return {head_data + first_key / Engine::kColumns * panel, panel, plane};
  }
};

// Rows of S values with D features, of every key head, as rows: for products along S.
template <typename Engine>
struct StackedRows {
  using Element = typename Engine::Element;
  static constexpr int64_t kRowsPerTask = kPanelsPerTask * Engine::kColumns;

  int64_t S, D;
  int64_t rows = round_up(S, Engine::kColumns);
  int64_t width = round_up(D, Engine::kColumns);
  int64_t panel = rows * Engine::kColumns;
  int64_t plane = rows * width;
  int64_t head = Engine::kPlanes * plane;
  int64_t tasks = (rows + kRowsPerTask - 1) / kRowsPerTask;

  int64_t scratch_bytes() const {
    return 2 * width * (int64_t{sizeof(float)} + 2 * Engine::kPlanes);
  }

  template <typename Load>
  void pack(int64_t task, Element* head_data, float* scratch, const Load& load_into) const {
    memset(scratch, 0, 2 * static_cast<size_t>(width) * sizeof(float));
    for (int64_t s = task * kRowsPerTask; s < (task + 1) * kRowsPerTask && s < rows; s += 2) {
      for (int64_t j = 0; j < 2; ++j) {
        if (s + j < S) {
          load_into(s + j, scratch + j * width);
        } else {
          memset(scratch + j * width, 0, static_cast<size_t>(width) * sizeof(float));
        }
      }
      Engine::pack_two_rows(scratch, width, width, head_data + s * Engine::kColumns, panel, plane,
                            reinterpret_cast<uint16_t*>(scratch + 2 * width));
    }
  }

  Panels<Element> from(const Element* head_data, int64_t first_row) const {
    return {head_data + first_row * Engine::kColumns, panel, plane};
  }
};

}  // namespace pyseq::PYSEQ_ISA
