#include "mixture/context_trie.hpp"

#include <bit>
#include <utility>

namespace pyseq {

namespace {

constexpr size_t kFirstPlaces = size_t{1} << 12;

size_t fitting(size_t places) { return places / 4 * 3; }

}  // namespace

ContextTrie::ContextTrie(size_t most_places) : nodes_(kFirstPlaces), most_places_(most_places) {}

size_t ContextTrie::home(uint32_t parent, uint16_t symbol) const {
  const uint64_t name = uint64_t{parent} << 16 | symbol;
  uint64_t mixed = name * 0x9E3779B97F4A7C15u;
  mixed ^= mixed >> 32;
  mixed *= 0xD6E8FEB86659FD93u;
  return mixed >> (65 - std::bit_width(nodes_.size()));
}

uint32_t ContextTrie::find(uint32_t parent, uint16_t symbol) const {
  size_t place = home(parent, symbol);
  while (nodes_[place].id != 0) {
    if (nodes_[place].parent == parent && nodes_[place].symbol == symbol) {
      return static_cast<uint32_t>(place);
    }
    place = (place + 1) & (nodes_.size() - 1);
  }
  return kNone;
}

void ContextTrie::prefetch(uint32_t parent, uint16_t symbol) const {
  __builtin_prefetch(&nodes_[home(parent, symbol)]);
}

uint32_t ContextTrie::free_place(uint32_t parent, uint16_t symbol) const {
  size_t place = home(parent, symbol);
  while (nodes_[place].id != 0) place = (place + 1) & (nodes_.size() - 1);
  return static_cast<uint32_t>(place);
}

uint32_t ContextTrie::insert(uint32_t parent, uint16_t symbol) {
  if (used_ >= fitting(nodes_.size())) return kNone;
  const uint32_t place = free_place(parent, symbol);
  ++used_;
  nodes_[place] = {.id = kEmptyString + static_cast<uint32_t>(used_),
                   .parent = parent,
                   .count = 1,
                   .symbol = symbol,
                   .followers = {}};
  return place;
}

bool ContextTrie::has_room(size_t strings) const {
  return nodes_.size() >= most_places_ || used_ + strings <= fitting(nodes_.size());
}

void ContextTrie::grow() {
  std::vector<ContextNode> before(nodes_.size() * 2);
  std::swap(before, nodes_);
  for (const ContextNode& node : before) {
    if (node.id != 0) nodes_[free_place(node.parent, node.symbol)] = node;
  }
}

}  // namespace pyseq
