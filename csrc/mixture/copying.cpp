#include "mixture/copying.hpp"

#include <algorithm>
#include <bit>

namespace pyseq {

namespace {

constexpr int64_t kBlock = 4096;         // symbols between looks at what lags cost
constexpr int64_t kMostVisitsEach = 24;  // occurrences looked at per symbol, on average
constexpr uint32_t kFewestLags = 32;
constexpr uint64_t kFactor = 0x9E3779B97F4A7C15u;

}  // namespace

LongMatch::LongMatch(uint32_t fewest)
    : fewest_(fewest), dropped_factor_(1), places_(kFirstPlaces, 0) {
  for (uint32_t i = 0; i < fewest; ++i) dropped_factor_ *= kFactor;
}

size_t LongMatch::trust_class() const {
  const size_t length = length_ < 8 ? length_ : std::min<size_t>(kLengths - 1, 6 + length_ / 8);
  return length * 4 + std::min(wrong_, 3u);
}

// The hash of the last symbols once the one before `end` has come.
uint64_t LongMatch::roll(uint64_t hash, const History& history, int64_t end) const {
  hash = hash * kFactor + history[end - 1] + 1;
  if (end > fewest_) hash -= (history[end - 1 - fewest_] + uint64_t{1}) * dropped_factor_;
  return hash;
}

uint32_t& LongMatch::place_of(uint64_t hash) {
  return places_[(hash ^ hash >> 32) * 0xD6E8FEB86659FD93u >>
                 (65 - std::bit_width(places_.size()))];
}

// Note where the symbols before the last one stood. Those up to the last are noted a step later:
// they must not be found as their own past.
void LongMatch::remember(const History& history) {
  const int64_t size = history.size();
  if (static_cast<size_t>(size) <= places_.size() || places_.size() >= History::kMost) {
    if (size > fewest_) place_of(hash_) = static_cast<uint32_t>(size - 1);
    return;
  }
  places_.assign(places_.size() * 2, 0);
  uint64_t hash = 0;
  for (int64_t end = 1; end < size; ++end) {
    hash = roll(hash, history, end);
    if (end >= fewest_) place_of(hash) = static_cast<uint32_t>(end);
  }
}

uint32_t LongMatch::common_length(const History& history, int64_t end) const {
  uint32_t length = 0;
  while (length < kLongest && end - length > history.first() &&
         history[end - length - 1] == history.back(length + 1)) {
    ++length;
  }
  return length;
}

void LongMatch::prepare(const History& history) {
  const int64_t size = history.size();
  // A wrong guess moves on to the next symbol, unless they were many.
  if (place_ != kNowhere && (place_ < history.first() || wrong_ > kRecent / 2)) {
    place_ = kNowhere;
  }
  if (size > fewest_ && (place_ == kNowhere || length_ < fewest_)) {
    const uint32_t low = place_of(hash_);
    const int64_t place = size - static_cast<uint32_t>(static_cast<uint32_t>(size) - low);
    if (low != 0 && place > history.first() && place < size) {
      const uint32_t length = common_length(history, place);
      if (length >= fewest_ && (place_ == kNowhere || length > length_)) {
        if (place != place_) recent_ = wrong_ = 0;
        place_ = place;
        length_ = length;
      }
    }
  }
  if (place_ != kNowhere) named_ = history[place_];
}

void LongMatch::update(const History& history, const Fallback& else_, double mixed) {
  remember(history);
  hash_ = roll(hash_, history, history.size());
  __builtin_prefetch(&place_of(hash_));
  if (place_ != kNowhere) {
    const bool right = history.back(1) == named_;
    trusts_[trust_class()].update(right, else_, mixed);
    length_ = right ? std::min(length_ + 1, kLongest) : 0;
    wrong_ += right ? 0 : 1;
    wrong_ -= recent_ >> (kRecent - 1) & 1;
    recent_ = recent_ << 1 | (right ? 0 : 1);
    ++place_;
  }
}

void PeriodVote::prepare(const History& history, int64_t period) {
  tried_ = votes_ = 0;
  if (period == 0) return;
  std::array<uint16_t, kMostTried> stood;
  const int64_t reach = history.size() - history.first();
  while (tried_ < kMostTried && static_cast<int64_t>(tried_ + 1) * period <= reach) {
    stood[tried_] = history.back(static_cast<int64_t>(tried_ + 1) * period);
    ++tried_;
  }
  for (size_t i = 0; i < tried_ && votes_ < tried_ - i; ++i) {
    const auto votes =
        static_cast<size_t>(std::count(stood.begin() + i, stood.begin() + tried_, stood[i]));
    if (votes <= votes_) continue;
    votes_ = votes;
    named_ = stood[i];
  }
}

void PeriodVote::update(uint16_t symbol, const Fallback& else_, double mixed) {
  const bool right = found() && symbol == named_;
  if (found()) trusts_[votes_ * (kMostTried + 1) + tried_].update(right, else_, mixed);
  right_ += right ? 1 : 0;
  right_ -= recent_ >> (kRecent - 1) & 1;
  recent_ = recent_ << 1 | (right ? 1 : 0);
}

CopyLags::CopyLags(uint32_t alphabet, uint32_t most_lags)
    : window_(most_lags),
      last_(alphabet, -1),
      before_(std::bit_ceil(most_lags), 0),
      credit_(most_lags + 1, 1.0 / most_lags) {}

void CopyLags::prepare(const History& history) {
  const auto reach = static_cast<uint32_t>(std::min<int64_t>(window_, history.size()));
  while (active_ < reach) all_credit_ += credit_[++active_];
}

void CopyLags::evaluate(const History& history, uint32_t symbol, double lower, Trial& trial) const {
  trial.lags.clear();
  double credit = lower_credit_ * lower;
  const int64_t size = history.size();
  int64_t place = last_[symbol];
  while (place >= 0 && size - place <= active_) {
    const auto lag = static_cast<uint32_t>(size - place);
    trial.lags.push_back(lag);
    credit += credit_[lag];
    const uint32_t further = before_[place & (before_.size() - 1)];
    if (further == 0) break;
    place -= further;
  }
  trial.probability = credit / all_credit_;
}

Guess CopyLags::guess(const History& history) const {
  if (best_ > active_) return {};
  return {history.back(best_), credit_[best_] / all_credit_};
}

void CopyLags::update(const History& history, uint32_t symbol, double lower, const Trial& trial) {
  const double each = 1 / (trial.probability * all_credit_);
  lower_credit_ += lower_credit_ * lower * each;
  for (const uint32_t lag : trial.lags) {
    credit_[lag] += credit_[lag] * each;
    if (credit_[lag] > credit_[best_]) best_ = lag;
  }
  all_credit_ += 1;
  const int64_t size = history.size();
  const int64_t distance = last_[symbol] < 0 ? 0 : size - last_[symbol];
  before_[size & (before_.size() - 1)] =
      distance <= static_cast<int64_t>(before_.size()) ? static_cast<uint32_t>(distance) : 0;
  last_[symbol] = size;
  visited_ += static_cast<int64_t>(trial.lags.size());
  if ((size + 1) % kBlock == 0) {
    if (visited_ > kMostVisitsEach * kBlock && window_ > kFewestLags) narrow();
    visited_ = 0;
  }
}

// Where few symbols are frequent, each stands at many lags, which takes time.
void CopyLags::narrow() {
  window_ /= 2;
  active_ = std::min(active_, window_);
  all_credit_ = lower_credit_;
  for (uint32_t lag = 1; lag <= active_; ++lag) all_credit_ += credit_[lag];
  if (best_ > window_) {
    best_ = static_cast<uint32_t>(
        std::max_element(credit_.begin() + 1, credit_.begin() + 1 + window_) - credit_.begin());
  }
}

}  // namespace pyseq
