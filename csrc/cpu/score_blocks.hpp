// Products of a few queries with the keys that they see, block by block of keys.
#pragma once

#include "cpu/packed_rows.hpp"

namespace pyseq::PYSEQ_ISA {

inline constexpr int64_t kKeysPerBlock = 128;

// Elements from row to row of a block: a power of two would crowd a few sets of the cache.
template <typename Element>
inline constexpr int64_t kBlockPitch = kKeysPerBlock + 64 / int64_t{sizeof(Element)};

// Keys 0 to prefix and begin to end, a multiple of kColumns at a time: neighbours may come along.
struct KeyRange {
  int64_t prefix;
  int64_t begin;
  int64_t end;
};

template <typename Engine>
struct ScoreBlocks {
  using Element = typename Engine::Element;

  Rows<Element> queries;
  int64_t rows;   // of queries, a multiple of Engine::kRowUnit
  int64_t count;  // of them that are there
  const Columns<Engine>& columns;
  const Element* keys;
  KeyRange range;
  float* memory;  // bytes(rows) of it

  static constexpr int64_t bytes(int64_t rows) {
    return 2 * rows * kBlockPitch<float> * int64_t{sizeof(float)};
  }

  // Calls row(i, first, width, scores) for the queries, then block(first, width, scores), for every
  // block; scores are those of query i or all, kBlockPitch<float> apart. The next block is
  // multiplied piece by piece between the rows of this one, so that a CPU whose matrix and vector
  // units are apart keeps both busy.
  template <typename Row, typename Block>
  PYSEQ_INLINE void for_each(const Row& row, const Block& block) const {
    float* scores = memory;
    float* ahead = memory + rows * kBlockPitch<float>;
    Span here = span_from(0);
    for (int64_t n = 0; n < here.width; n += Engine::kColumns) multiply(here, n, scores);
    while (here.width > 0) {
      const Span next = span_from(here.first + here.width);
      int64_t done = 0;
      for (int64_t i = 0; i < count; ++i) {
        for (; done < next.width && done * count <= i * next.width; done += Engine::kColumns) {
          multiply(next, done, ahead);
        }
        row(i, here.first, here.width, scores + i * kBlockPitch<float>);
      }
      for (; done < next.width; done += Engine::kColumns) multiply(next, done, ahead);
      block(here.first, here.width, scores);
      float* const swap = scores;
      scores = ahead;
      ahead = swap;
      here = next;
    }
  }

 private:
  struct Span {
    int64_t first;
    int64_t width;
  };

  Span span_from(int64_t key) const {
    const int64_t begin = range.begin / Engine::kColumns * Engine::kColumns;
    if (key >= range.prefix && key < begin) key = begin;
    const int64_t end = range.end > range.prefix ? range.end : range.prefix;
    const int64_t left = round_up(end - key, Engine::kColumns);
    return {key, left <= 0 ? 0 : left < kKeysPerBlock ? left : kKeysPerBlock};
  }

  void multiply(Span span, int64_t column, float* scores) const {
    Engine::template multiply<false>(queries, columns.from(keys, span.first + column),
                                     scores + column, kBlockPitch<float>, rows, Engine::kColumns,
                                     columns.depth);
  }
};

}  // namespace pyseq::PYSEQ_ISA
