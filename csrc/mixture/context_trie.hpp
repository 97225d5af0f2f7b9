// Counts of strings, the contexts of every order in one table.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "mixture/count_stage.hpp"

namespace pyseq {

// A string of symbols: how often it occurred, and what followed it. It is named by the string
// without its last symbol and by that symbol, so that equal names are equal strings.
struct ContextNode {
  uint32_t id = 0;      // 0 in an empty place
  uint32_t parent = 0;  // the id of the string without its last symbol
  uint32_t count = 0;
  uint16_t symbol = 0;
  Followers followers;
};
static_assert(sizeof(ContextNode) == 32, "two of them fill a cache line");

class ContextTrie {
 public:
  static constexpr uint32_t kNone = UINT32_MAX;
  static constexpr uint32_t kEmptyString = 1;  // an id, which no node has

  // At most 3/4 of `most_places` strings are kept; that number is a power of 2.
  explicit ContextTrie(size_t most_places);

  // Where to look for a string; a look takes long, so that several should be under way.
  uint32_t home(uint32_t parent, uint16_t symbol) const {
    uint64_t mixed = (uint64_t{parent} << 16 | symbol) * 0x9E3779B97F4A7C15u;
    mixed = (mixed ^ mixed >> 32) * 0xD6E8FEB86659FD93u;
    return static_cast<uint32_t>(mixed >> shift_);
  }
  void prefetch(uint32_t home) const { __builtin_prefetch(&nodes_[home]); }
  // The place of a string, or kNone.
  uint32_t find(uint32_t home, uint32_t parent, uint16_t symbol) const {
    uint32_t place = home;
    while (nodes_[place].id != 0) {
      if (nodes_[place].parent == parent && nodes_[place].symbol == symbol) return place;
      place = (place + 1) & mask_;
    }
    return kNone;
  }
  // The place of a new string that occurred once, or kNone if there is no room for it.
  uint32_t insert(uint32_t parent, uint16_t symbol);
  // Whether so many strings can be inserted before the table must grow, or can grow no more.
  bool has_room(size_t strings) const;
  // Double the number of places, which moves every string.
  void grow();

  ContextNode& operator[](uint32_t place) { return nodes_[place]; }
  const ContextNode& operator[](uint32_t place) const { return nodes_[place]; }

 private:
  uint32_t free_place(uint32_t parent, uint16_t symbol) const;
  void resize(size_t places);

  std::vector<ContextNode> nodes_;
  int shift_;
  uint32_t mask_;
  size_t most_places_;
  size_t used_ = 0;
};

}  // namespace pyseq
