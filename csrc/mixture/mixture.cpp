#include "mixture/mixture.hpp"

#include <algorithm>
#include <bit>
#include <cmath>

#include "mixture/blends.hpp"
#include "mixture/share.hpp"

namespace pyseq {

namespace {

constexpr uint32_t kFullCounts = 256;  // the largest alphabet whose lags are counted in full
constexpr uint32_t kWithDifferences = 17;  // below, order 1 says what differences could
constexpr uint32_t kWithSecondDifferences = 257;
constexpr uint32_t kMostCopyLags = 1024;
constexpr size_t kMostStrings = size_t{1} << 23;  // places, 256 MiB
constexpr double kLeastWeightOfVote = 1e-3;

// The first is 2: order 1 has lag 1.
constexpr uint16_t kLags[] = {2,  3,  4,  5,  6,  7,  8,  9,  10, 11,  12,
                              13, 14, 15, 16, 24, 32, 48, 64, 96, 128, 256};
constexpr size_t kLagCount = std::size(kLags);

// Contexts of every order should recur: about 2^16 of the longest, if all are equally frequent,
// and more where most of them never occur, as in text.
uint32_t longest_order(uint32_t alphabet) {
  if (alphabet <= 2) return 16;
  if (alphabet <= 4) return 8;
  return alphabet <= 256 ? 6 : 3;
}

// Symbols that agree by chance once in 2^32 places.
uint32_t fewest_matched(uint32_t alphabet) {
  const auto bits = std::max(1, static_cast<int>(std::bit_width(alphabet - 1)));
  return static_cast<uint32_t>((32 + bits - 1) / bits);
}

}  // namespace

Mixture::Mixture(uint32_t alphabet)
    : alphabet_(alphabet),
      most_order_(longest_order(alphabet)),
      has_differences_(alphabet >= kWithDifferences),
      marginal_(alphabet),
      trie_(kMostStrings),
      copies_(alphabet, std::min(kMostCopyLags, 16 * std::bit_ceil(alphabet))),
      match_(fewest_matched(alphabet)) {
  contexts_.fill(ContextTrie::kNone);
  names_.push_back("uniform");
  for (uint32_t order = 0; order <= most_order_; ++order) {
    names_.push_back("order " + std::to_string(order));
    if (order > 0) stages_.emplace_back(kDiscounts, kPulls);
  }
  for (const uint16_t lag : kLags) names_.push_back("lag " + std::to_string(lag));
  if (alphabet <= kFullCounts) {
    lag_counts_.assign(kLagCount, LagCounts(alphabet));
  } else {
    successors_.assign(kLagCount, Successors(alphabet));
  }
  names_.push_back("copy");
  names_.push_back("match");
  if (has_differences_) {
    names_.push_back("difference");
    difference_.emplace(alphabet);
  }
  if (alphabet >= kWithSecondDifferences) {
    names_.push_back("second difference");
    second_difference_.emplace(alphabet);
  }
  prior_.resize(names_.size());
  favour_first(prior_);
  weights_ = prior_;
  weight_sums_.assign(names_.size(), 0.0);
  trial_.probabilities.resize(names_.size());
  prepare();
}

Followers& Mixture::followers(uint32_t order) { return trie_[contexts_[order]].followers; }

uint32_t Mixture::difference_to(uint32_t symbol) const {
  const uint32_t last = history_.size() > 0 ? history_.back(1) : 0;
  return symbol >= last ? symbol - last : symbol + alphabet_ - last;
}

uint32_t Mixture::second_difference_to(uint32_t symbol) const {
  const uint32_t last = history_.size() > 0 ? history_.back(1) : 0;
  const uint32_t before = history_.size() > 1 ? history_.back(2) : 0;
  return (symbol + 2 * (alphabet_ - last) + before) % alphabet_;
}

// All that is known before the symbol is.
void Mixture::prepare() {
  marginal_.prepare();
  static const Followers kNothing;
  for (uint32_t order = 1; order <= most_order_; ++order) {
    const bool known = contexts_[order] != ContextTrie::kNone;
    stages_[order - 1].prepare(known ? followers(order) : kNothing);
  }
  for (size_t i = 0; i < kLagCount && kLags[i] <= history_.size(); ++i) {
    const uint16_t value = history_.back(kLags[i]);
    if (lag_counts_.empty()) {
      successors_[i].prepare(value);
    } else {
      lag_counts_[i].prepare(value);
    }
  }
  copies_.prepare(history_);
  match_.prepare(history_);
  if (difference_) difference_->prepare();
  if (second_difference_) second_difference_->prepare();
}

void Mixture::evaluate(uint32_t symbol, Trial& trial) const {
  const auto narrow = static_cast<uint16_t>(symbol);
  double* said = trial.probabilities.data();
  *said++ = 1.0 / alphabet_;

  for (uint32_t order = 1; order <= most_order_; ++order) {
    if (contexts_[order] != ContextTrie::kNone) {
      trie_.prefetch(trie_[contexts_[order]].id, narrow);
    }
  }
  marginal_.evaluate(symbol, trial.marginal);
  const double alone = trial.marginal.probability;
  *said++ = alone;
  trial.places[0] = trie_.find(ContextTrie::kEmptyString, narrow);
  double longest = alone;
  for (uint32_t order = 1; order <= most_order_; ++order) {
    uint32_t place = ContextTrie::kNone;
    if (contexts_[order] != ContextTrie::kNone) {
      place = trie_.find(trie_[contexts_[order]].id, narrow);
      const uint32_t count = place == ContextTrie::kNone ? 0 : trie_[place].count;
      longest = stages_[order - 1].probability(count, longest);
    }
    trial.places[order] = place;
    *said++ = longest;
  }

  for (const LagCounts& lag : lag_counts_) *said++ = lag.probability(symbol, alone);
  for (const Successors& lag : successors_) {
    *said++ = lag.found() ? lag.trust().probability(lag.named() == symbol, alone) : alone;
  }
  copies_.evaluate(history_, symbol, alone, trial.copies);
  *said++ = trial.copies.probability;
  *said++ = match_.found() ? match_.trust().probability(match_.named() == symbol, longest) : longest;
  if (difference_) {
    difference_->evaluate(difference_to(symbol), trial.difference);
    *said++ = trial.difference.probability;
  }
  if (second_difference_) {
    second_difference_->evaluate(second_difference_to(symbol), trial.second_difference);
    *said++ = trial.second_difference.probability;
  }
  double mixed = 0;
  for (size_t i = 0; i < weights_.size(); ++i) mixed += weights_[i] * trial.probabilities[i];
  trial.mixed = mixed;
}

void Mixture::vote(size_t expert, const Guess& guess) {
  const double mass = weights_[expert] * guess.mass;
  for (Vote& vote : votes_) {
    if (vote.symbol == guess.symbol) {
      vote.mass += mass;
      return;
    }
  }
  votes_.push_back({guess.symbol, mass});
}

// Each expert of some weight gives its first choice what it knows of its probability.
uint16_t Mixture::guess() {
  votes_.clear();
  const Guess alone = marginal_.guess();
  Guess longest = alone;
  size_t expert = 1;
  const auto counts = [this](size_t i) { return weights_[i] > kLeastWeightOfVote; };
  vote(expert++, alone);
  for (uint32_t order = 1; order <= most_order_; ++order, ++expert) {
    if (contexts_[order] != ContextTrie::kNone) {
      longest = stages_[order - 1].guess(followers(order), longest);
    }
    if (counts(expert)) vote(expert, longest);
  }
  for (size_t i = 0; i < kLagCount; ++i, ++expert) {
    if (!counts(expert)) continue;
    if (!lag_counts_.empty()) {
      vote(expert, lag_counts_[i].guess(alone));
    } else if (successors_[i].found()) {
      vote(expert, {successors_[i].named(), successors_[i].trust().value()});
    }
  }
  if (counts(expert)) vote(expert, copies_.guess(history_));
  ++expert;
  if (counts(expert)) {
    const double trust = match_.found() ? match_.trust().value() : 0;
    vote(expert, {longest.symbol, (1 - trust) * longest.mass});
    if (match_.found()) vote(expert, {match_.named(), trust});
  }
  ++expert;
  const uint32_t last = history_.size() > 0 ? history_.back(1) : 0;
  if (difference_ && counts(expert)) {
    const Guess step = difference_->guess();
    vote(expert, {static_cast<uint16_t>((last + step.symbol) % alphabet_), step.mass});
  }
  ++expert;
  if (second_difference_ && counts(expert)) {
    const uint32_t before = history_.size() > 1 ? history_.back(2) : 0;
    const Guess step = second_difference_->guess();
    const uint32_t symbol = (2 * last + alphabet_ - before + step.symbol) % alphabet_;
    vote(expert, {static_cast<uint16_t>(symbol), step.mass});
  }
  return std::max_element(votes_.begin(), votes_.end(),
                          [](const Vote& a, const Vote& b) { return a.mass < b.mass; })
      ->symbol;
}

void Mixture::update_contexts(uint32_t symbol, const Trial& trial) {
  const auto narrow = static_cast<uint16_t>(symbol);
  std::array<uint32_t, kMostOrders> next;
  next.fill(ContextTrie::kNone);
  bool shorter_known = true;  // whether the next shorter string had occurred before
  for (uint32_t order = 0; order <= most_order_; ++order) {
    if (order > 0 && contexts_[order] == ContextTrie::kNone) break;
    uint32_t place = trial.places[order];
    const bool known = place != ContextTrie::kNone;
    Followers& seen = order == 0 ? all_ : followers(order);
    if (known) {
      seen.add(narrow, ++trie_[place].count);
    } else if (shorter_known) {
      const uint32_t parent = order == 0 ? ContextTrie::kEmptyString : trie_[contexts_[order]].id;
      place = trie_.insert(parent, narrow);
      if (place != ContextTrie::kNone) seen.add(narrow, 1);
    }
    shorter_known = known;
    if (order < most_order_) next[order + 1] = place;
  }
  contexts_ = next;
}

// The table's places move; contexts are found again by their names.
void Mixture::grow_contexts() {
  std::array<uint64_t, kMostOrders> name;
  for (uint32_t order = 1; order <= most_order_; ++order) {
    if (contexts_[order] == ContextTrie::kNone) continue;
    const ContextNode& node = trie_[contexts_[order]];
    name[order] = uint64_t{node.parent} << 16 | node.symbol;
  }
  trie_.grow();
  for (uint32_t order = 1; order <= most_order_; ++order) {
    if (contexts_[order] == ContextTrie::kNone) continue;
    contexts_[order] = trie_.find(static_cast<uint32_t>(name[order] >> 16),
                                  static_cast<uint16_t>(name[order] & 0xFFFF));
  }
}

void Mixture::update(uint32_t symbol, const Trial& trial) {
  const double* said = trial.probabilities.data() + 1;
  const double alone = *said++;
  double longest = alone;
  for (uint32_t order = 1; order <= most_order_; ++order) {
    const uint32_t place = trial.places[order];
    const uint32_t count = place == ContextTrie::kNone ? 0 : trie_[place].count;
    stages_[order - 1].update(count, longest, *said);
    longest = *said++;
  }
  update_contexts(symbol, trial);
  for (LagCounts& lag : lag_counts_) lag.update(symbol, alone, *said++);
  for (Successors& lag : successors_) lag.update(static_cast<uint16_t>(symbol), *said++);
  copies_.update(history_, symbol, alone, trial.copies);
  const double matched = *++said;
  if (difference_) difference_->update(difference_to(symbol), trial.difference);
  if (second_difference_) {
    second_difference_->update(second_difference_to(symbol), trial.second_difference);
  }
  marginal_.update(symbol, trial.marginal);
  reweigh(weights_, trial.probabilities, trial.mixed, prior_, share_at(history_.size()));
  for (size_t i = 0; i < weights_.size(); ++i) weight_sums_[i] += weights_[i];
  history_.push(static_cast<uint16_t>(symbol));
  match_.update(history_, matched);
}

void Mixture::score(std::span<const uint16_t> symbols, std::span<double> bits,
                    std::span<bool> hits) {
  for (size_t i = 0; i < symbols.size(); ++i) {
    if (!trie_.has_room(kMostOrders)) grow_contexts();
    evaluate(symbols[i], trial_);
    // The mixture may round to a hair above 1.
    bits[i] = -std::log2(std::min(trial_.mixed, 1.0)) + 0.0;
    hits[i] = guess() == symbols[i];
    update(symbols[i], trial_);
    prepare();
  }
}

void Mixture::probabilities(std::span<double> out) {
  Trial trial = trial_;
  for (uint32_t symbol = 0; symbol < alphabet_; ++symbol) {
    evaluate(symbol, trial);
    out[symbol] = trial.mixed;
  }
}

}  // namespace pyseq
