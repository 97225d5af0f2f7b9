#include "mixture/context_trie.hpp"

#include <bit>
#include <utility>

namespace pyseq {

namespace {

constexpr size_t kFirstPlaces = size_t{1} << 12;

size_t fitting(size_t places) { return places / 4 * 3; }

}  // namespace

ContextTrie::ContextTrie(size_t most_places) : most_places_(most_places) { resize(kFirstPlaces); }

void ContextTrie::resize(size_t places) {
  nodes_.assign(places, {});
  mask_ = static_cast<uint32_t>(places - 1);
  shift_ = 64 - std::bit_width(places - 1);
}

uint32_t ContextTrie::free_place(uint32_t parent, uint16_t symbol) const {
  uint32_t place = home(parent, symbol);
  while (nodes_[place].id != 0) place = (place + 1) & mask_;
  return place;
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
  const size_t places = nodes_.size() * 2;
  const std::vector<ContextNode> before = std::move(nodes_);
  resize(places);
  for (const ContextNode& node : before) {
    if (node.id != 0) nodes_[free_place(node.parent, node.symbol)] = node;
  }
}

}  // namespace pyseq
