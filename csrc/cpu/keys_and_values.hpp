// Keys and values of an attention, packed; and which of them are NaN or infinite.
#pragma once

#include "cpu/packed_rows.hpp"
#include "cpu/seen_keys.hpp"

namespace pyseq::PYSEQ_ISA {

// A weight of 0 does not keep a NaN out of a product, so a row that holds one is taken out of it.
inline bool hide_if_bad(float* row, int64_t D, int64_t width) {
  if (all_finite(row, D)) return false;
  memset(row, 0, static_cast<size_t>(width) * sizeof(float));
  return true;
}

template <typename Engine>
class KeysAndValues {
 public:
  using Element = typename Engine::Element;

  const Columns<Engine> columns;   // of keys
  const StackedRows<Engine> rows;  // of values

  // S keys with D features, of so many key heads.
  KeysAndValues(int64_t heads, int64_t S, int64_t D)
      : columns{S, D},
        rows{S, D},
        heads_(heads),
        keys_(heads * columns.head * int64_t{sizeof(Element)}),
        values_(heads * rows.head * int64_t{sizeof(Element)}),
        marks_(heads * (S + 1) * int64_t{sizeof(int32_t)}),
        bad_(heads * int64_t{sizeof(int32_t)}) {}

  // Of a thread that packs.
  int64_t scratch_bytes() const {
    const int64_t of_keys = columns.scratch_bytes();
    const int64_t of_values = rows.scratch_bytes();
    return padded_bytes(of_keys > of_values ? of_keys : of_values);
  }

  // load_key(head, s, row) and load_value(head, s, row) write D features; scratch_of(worker) is
  // scratch_bytes() of memory.
  template <typename LoadKey, typename LoadValue, typename ScratchOf>
  void pack(int threads, const LoadKey& load_key, const LoadValue& load_value,
            const ScratchOf& scratch_of) {
    memset(bad_.as<int32_t>(), 0, static_cast<size_t>(heads_) * sizeof(int32_t));
    for_tasks(heads_ * columns.tasks, threads, [&](int64_t task, int worker) {
      pack_part(task / columns.tasks, task % columns.tasks, load_key, load_value,
                scratch_of(worker));
    });
    for (int64_t head = 0; head < heads_; ++head) {
      if (bad_.as<int32_t>()[head] != 0) count_marks(marks_of(head));
    }
  }

  const Element* keys(int64_t head) const { return keys_.as<Element>() + head * columns.head; }
  const Element* values(int64_t head) const { return values_.as<Element>() + head * rows.head; }

  // Whether a query sees a key or a value that is not finite.
  bool spoil(int64_t head, const Seen& seen) const {
    return bad_.as<int32_t>()[head] != 0 && seen.count(marks_of(head)) > 0;
  }

 private:
  template <typename LoadKey, typename LoadValue>
  void pack_part(int64_t head, int64_t part, const LoadKey& load_key, const LoadValue& load_value,
                 float* scratch) {
    int32_t* marks = marks_of(head) + 1;
    bool bad = false;
    columns.pack(part, keys_.as<Element>() + head * columns.head, scratch,
                 [&](int64_t s, float* row) {
                   load_key(head, s, row);
                   marks[s] = hide_if_bad(row, columns.D, columns.depth);
                 });
    rows.pack(part, values_.as<Element>() + head * rows.head, scratch, [&](int64_t s, float* row) {
      load_value(head, s, row);
      marks[s] |= hide_if_bad(row, rows.D, rows.D);
      bad = bad || marks[s] != 0;
    });
    if (bad) __atomic_store_n(bad_.as<int32_t>() + head, 1, __ATOMIC_RELAXED);
  }

  void count_marks(int32_t* marks) const {
    marks[0] = 0;
    for (int64_t s = 0; s < columns.S; ++s) marks[s + 1] += marks[s];
  }

  int32_t* marks_of(int64_t head) const { return marks_.as<int32_t>() + head * (columns.S + 1); }

  const int64_t heads_;
  const Buffer keys_;
  const Buffer values_;
  const Buffer marks_;  // (heads, S + 1) int32: bad keys and values before s, where there are any
  const Buffer bad_;    // (heads,) int32: whether there are any
};

}  // namespace pyseq::PYSEQ_ISA
