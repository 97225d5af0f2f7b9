#include "mixture/mixture.hpp"

#include <algorithm>
#include <bit>
#include <cmath>

#include "mixture/share.hpp"

namespace pyseq {

namespace {

constexpr uint32_t kFullCounts = 256;      // the largest alphabet whose lags are counted in full
constexpr uint32_t kWithDifferences = 17;  // below, order 1 says what differences could
constexpr uint32_t kWithSecondDifferences = 257;
constexpr uint32_t kMostCopyLags = 1024;
constexpr double kLeastWeightOfVote = 1e-2;

// The first is 2: order 1 has lag 1.
constexpr uint16_t kLags[] = {2, 3, 4, 5, 6, 7, 8, 12, 16, 32, 64};
constexpr size_t kLagCount = std::size(kLags);

// Symbols that agree by chance once in 2^32 places.
uint32_t fewest_matched(uint32_t alphabet) {
  const auto bits = std::max(1, static_cast<int>(std::bit_width(alphabet - 1)));
  return static_cast<uint32_t>((32 + bits - 1) / bits);
}

// What somebody who names one symbol, or none now, makes of others' probabilities.
template <typename Naming>
double trusting(const Naming& naming, uint32_t symbol, const Fallback& else_) {
  if (!naming.found()) return else_.lower;
  return naming.trust().probability(naming.named() == symbol, else_);
}

}  // namespace

Mixture::Mixture(uint32_t alphabet)
    : alphabet_(alphabet),
      marginal_(alphabet),
      copies_(alphabet, std::min(kMostCopyLags, 16 * std::bit_ceil(alphabet))),
      match_(fewest_matched(alphabet)) {
  if (alphabet <= DenseOrders::kMostSymbols) {
    dense_orders_.emplace(alphabet);
    few_counts_.assign(kLagCount, {alphabet, alphabet, FixedBlend(alphabet / 2.0)});
  } else {
    sparse_orders_.emplace(alphabet);
  }
  if (few_counts_.empty() && alphabet <= kFullCounts) {
    const CountStage<2> stage({0, 0.5}, {alphabet / 2.0, 0.5});
    lag_counts_.assign(kLagCount, {alphabet, alphabet, stage});
  } else if (few_counts_.empty()) {
    successors_.assign(kLagCount, Successors(alphabet));
  }
  if (alphabet >= kWithDifferences) difference_.emplace(alphabet);
  if (alphabet >= kWithSecondDifferences) second_difference_.emplace(alphabet);

  names_.push_back("uniform");
  names_.push_back("order 0");
  for (const uint32_t order : orders()) names_.push_back("order " + std::to_string(order));
  for (const uint16_t lag : kLags) names_.push_back("lag " + std::to_string(lag));
  for (const char* name : {"copy", "match", "favourite", "period", "long period"})
    names_.push_back(name);
  if (difference_) names_.push_back("difference");
  if (second_difference_) names_.push_back("second difference");

  // Those that have nothing of their own to say repeat order 0, which therefore comes before them.
  prior_.assign(names_.size(), 0.25 / static_cast<double>(names_.size() - 2));
  prior_[0] = 0.5;
  prior_[1] = 0.25;
  weights_ = prior_;
  weight_sums_.assign(names_.size(), 0.0);
  trial_.probabilities.resize(names_.size());
  order_guesses_.resize(orders().size());
  prepare();
}

const std::vector<uint32_t>& Mixture::orders() const {
  return dense_orders_ ? dense_orders_->orders() : sparse_orders_->orders();
}

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
  if (dense_orders_) dense_orders_->prepare(history_);
  if (sparse_orders_) sparse_orders_->prepare();
  for (size_t i = 0; i < kLagCount && kLags[i] <= history_.size(); ++i) {
    const uint16_t value = history_.back(kLags[i]);
    if (!few_counts_.empty()) few_counts_[i].prepare(value);
    if (!lag_counts_.empty()) lag_counts_[i].prepare(value);
    if (!successors_.empty()) successors_[i].prepare(value);
  }
  copies_.prepare(history_);
  match_.prepare(history_);
  favourite_.prepare(history_, marginal_.guess().symbol);
  period_.prepare(history_, copies_.best());
  const int64_t distance = match_.distance(history_);
  if (distance != 0 && long_period_.fails()) long_distance_ = distance;
  long_period_.prepare(history_, long_distance_);
  if (difference_) difference_->prepare();
  if (second_difference_) second_difference_->prepare();
}

void Mixture::evaluate(uint32_t symbol, Trial& trial) const {
  double* said = trial.probabilities.data();
  *said++ = 1.0 / alphabet_;
  marginal_.evaluate(symbol, trial.marginal);
  const double alone = trial.marginal.probability;
  *said++ = alone;
  const std::span<double> chain(said, orders().size());
  if (dense_orders_) dense_orders_->evaluate(symbol, alone, chain);
  if (sparse_orders_) sparse_orders_->evaluate(symbol, alone, trial.strings, chain);
  said += chain.size();
  const double longest = chain.empty() ? alone : chain.back();

  for (const auto& lag : few_counts_) *said++ = lag.probability(symbol, alone);
  for (const auto& lag : lag_counts_) *said++ = lag.probability(symbol, alone);
  const Fallback unnamed{alone, 1.0 / alphabet_};
  for (const Successors& lag : successors_) *said++ = trusting(lag, symbol, unnamed);
  copies_.evaluate(history_, symbol, alone, trial.copies);
  *said++ = trial.copies.probability;
  *said++ = trusting(match_, symbol, {longest, 1.0 / alphabet_});
  *said++ = trusting(favourite_, symbol, unnamed);
  *said++ = trusting(period_, symbol, unnamed);
  *said++ = trusting(long_period_, symbol, unnamed);
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
  trial.mixed = alphabet_ == 1 ? 1.0 : mixed;  // without rounding, where all else would be odd
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
  vote(1, alone);
  size_t expert = 2;
  const auto heard = [this, &expert] { return weights_[expert] > kLeastWeightOfVote; };
  const auto vote_of = [&](const auto& naming, const Guess& lower) {
    if (heard()) {
      const double passed_on = naming.found() ? naming.trust().of_lower() : 1;
      vote(expert, {lower.symbol, passed_on * lower.mass});
      if (naming.found()) vote(expert, {naming.named(), naming.trust().value()});
    }
    ++expert;
  };

  if (dense_orders_) dense_orders_->guess(alone, order_guesses_);
  if (sparse_orders_) sparse_orders_->guess(alone, order_guesses_);
  for (const Guess& order : order_guesses_) {
    if (heard()) vote(expert, order);
    ++expert;
  }
  const auto counted = [&](const auto& lag) {
    if (heard()) vote(expert, lag.guess(alone));
    ++expert;
  };
  std::for_each(few_counts_.begin(), few_counts_.end(), counted);
  std::for_each(lag_counts_.begin(), lag_counts_.end(), counted);
  for (const Successors& lag : successors_) vote_of(lag, alone);
  if (heard()) vote(expert, copies_.guess(history_));
  ++expert;
  vote_of(match_, order_guesses_.empty() ? alone : order_guesses_.back());
  vote_of(favourite_, alone);
  vote_of(period_, alone);
  vote_of(long_period_, alone);
  const uint32_t last = history_.size() > 0 ? history_.back(1) : 0;
  if (difference_) {
    const Guess step = difference_->guess();
    if (heard()) vote(expert, {static_cast<uint16_t>((last + step.symbol) % alphabet_), step.mass});
    ++expert;
  }
  if (second_difference_ && heard()) {
    const uint32_t before = history_.size() > 1 ? history_.back(2) : 0;
    const Guess step = second_difference_->guess();
    const uint32_t symbol = (2 * last + alphabet_ - before + step.symbol) % alphabet_;
    vote(expert, {static_cast<uint16_t>(symbol), step.mass});
  }
  return std::max_element(votes_.begin(), votes_.end(),
                          [](const Vote& a, const Vote& b) { return a.mass < b.mass; })
      ->symbol;
}

void Mixture::update(uint32_t symbol, const Trial& trial) {
  const double* said = trial.probabilities.data() + 1;
  const double alone = *said++;
  const std::span<const double> chain(said, orders().size());
  if (dense_orders_) dense_orders_->update(symbol, alone, chain);
  if (sparse_orders_) sparse_orders_->update(symbol, alone, trial.strings, chain);
  said += chain.size();
  const double longest = chain.empty() ? alone : chain.back();
  const auto narrow = static_cast<uint16_t>(symbol);
  const Fallback unnamed{alone, 1.0 / alphabet_};
  for (auto& lag : few_counts_) lag.update(symbol, alone, *said++);
  for (auto& lag : lag_counts_) lag.update(symbol, alone, *said++);
  for (Successors& lag : successors_) lag.update(narrow, unnamed, *said++);
  copies_.update(history_, symbol, alone, trial.copies);
  const double matched = *++said;
  favourite_.update(narrow, unnamed, *++said);
  period_.update(narrow, unnamed, *++said);
  long_period_.update(narrow, unnamed, *++said);
  if (difference_) difference_->update(difference_to(symbol), trial.difference);
  if (second_difference_) {
    second_difference_->update(second_difference_to(symbol), trial.second_difference);
  }
  marginal_.update(symbol, trial.marginal);
  reweigh(weights_, trial.probabilities, trial.mixed, prior_, share_at(history_.size()));
  for (size_t i = 0; i < weights_.size(); ++i) weight_sums_[i] += weights_[i];
  history_.push(narrow);
  match_.update(history_, {longest, 1.0 / alphabet_}, matched);
}

void Mixture::score(std::span<const uint16_t> symbols, std::span<double> bits,
                    std::span<bool> hits) {
  for (size_t i = 0; i < symbols.size(); ++i) {
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
