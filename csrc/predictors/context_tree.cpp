#include "predictors/context_tree.hpp"

namespace pyseq::predictors {

ContextTree::ContextTree(Symbols symbols, int64_t alphabet, int64_t most_pairs, int64_t memory)
    : symbols_(symbols),
      most_pairs_(most_pairs),
      budget_(memory),
      roots_(alphabet),
      children_(budget_),
      followers_(budget_) {}

int64_t ContextTree::visit(int64_t position, Guesses& guesses) {
  const uint16_t symbol = symbols_[position];
  const int64_t longest = longest_at(position);
  Node* place = &roots_[symbols_[position - 1]];
  for (int64_t length = 1;; ++length) {
    if (place == nullptr || *place == 0) {
      add_leaf(place, position, length);
      return length - 1;
    }
    const Node found = *place;
    // Expanding moves nodes, and `place` no longer holds.
    const uint64_t context = (found & 1) == 0 ? found >> 1 : expand(*place, length);
    if (context == 0) return guess_by_leaf(leaf(found), position, length, guesses);
    guesses[length - 1] = followers_.best(context);
    if (followers_.count(context, symbol, may_add(length))) ++pairs_[length];
    if (length == longest) return length;
    const uint64_t key = context << 16 | symbols_[position - length - 1];
    place = may_add(length + 1) ? children_.find_or_insert(key) : children_.find(key);
  }
}

// Remembers the contexts of at least `length` symbols, none of which was seen before.
void ContextTree::add_leaf(Node* place, int64_t position, int64_t length) {
  int64_t deepest = length - 1;
  for (int64_t longer = length; longer <= longest_at(position); ++longer) {
    if (!may_add(longer)) continue;
    // A limit counts contexts that cannot be reached as well, below one that was not added: as in
    // a dictionary per length, where the shorter context is looked up first and not found.
    ++pairs_[longer];
    if (deepest == longer - 1) deepest = longer;
  }
  if (place != nullptr && deepest >= length) *place = node({position, deepest});
}

// Makes a leaf a context of its own with one leaf below it; its number, 0 if there is no memory.
uint64_t ContextTree::expand(Node& place, int64_t length) {
  const Leaf known = leaf(place);
  const uint64_t context = followers_.add_context(symbols_[known.position]);
  if (context == 0) return 0;
  place = context << 1;
  if (length < known.longest) {
    const uint64_t key = context << 16 | symbols_[known.position - length - 1];
    Node* const child = children_.find_or_insert(key);
    if (child != nullptr) *child = node(known);
  }
  return context;
}

int64_t ContextTree::guess_by_leaf(Leaf known, int64_t position, int64_t length,
                                   Guesses& guesses) const {
  const int64_t longest = std::min(known.longest, longest_at(position));
  while (true) {
    guesses[length - 1] = {symbols_[known.position], 1};
    if (length == longest ||
        symbols_[known.position - length - 1] != symbols_[position - length - 1]) {
      return length;
    }
    ++length;
  }
}

}  // namespace pyseq::predictors
