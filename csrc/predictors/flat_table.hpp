// A hash table whose memory is bounded.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace pyseq::predictors {

// Bytes that several structures share.
class MemoryBudget {
 public:
  explicit MemoryBudget(int64_t bytes) : left_(bytes) {}

  bool take(int64_t bytes) {
    if (bytes > left_) {
      refused_ = true;
      return false;
    }
    left_ -= bytes;
    return true;
  }
  void give_back(int64_t bytes) { left_ += bytes; }
  // Whether there was ever too little.
  bool refused() const { return refused_; }

 private:
  int64_t left_;
  bool refused_ = false;
};

// Values by keys, both 64 bits, in open addressing with linear probing. 0 is no key.
class FlatTable {
 public:
  // The budget must outlive this.
  explicit FlatTable(MemoryBudget& budget) : budget_(budget) {}

  // The value of a key, or nullptr. A pointer holds until the next insertion.
  uint64_t* find(uint64_t key) {
    if (entries_.empty()) return nullptr;
    Entry& entry = place(key);
    return entry.key == key ? &entry.value : nullptr;
  }

  // The value of a key, 0 if it is new; nullptr if it is new and the memory is used up.
  uint64_t* find_or_insert(uint64_t key) {
    if (entries_.empty() && !grow()) return nullptr;
    Entry* entry = &place(key);
    if (entry->key == key) return &entry->value;
    if (4 * (size_ + 1) > 3 * entries_.size()) {
      if (!grow()) return nullptr;
      entry = &place(key);
    }
    ++size_;
    entry->key = key;
    return &entry->value;
  }

 private:
  struct Entry {
    uint64_t key = 0;
    uint64_t value = 0;
  };

  // Where a key is, or would go.
  Entry& place(uint64_t key) {
    const uint64_t mask = entries_.size() - 1;
    uint64_t hash = key * 0x9E3779B97F4A7C15u;
    hash = (hash ^ (hash >> 32)) * 0xD6E8FEB86659FD93u;
    uint64_t index = (hash ^ (hash >> 32)) & mask;
    while (entries_[index].key != key && entries_[index].key != 0) index = (index + 1) & mask;
    return entries_[index];
  }

  bool grow() {
    constexpr size_t kSmallest = 1024;
    const size_t entries = entries_.empty() ? kSmallest : 2 * entries_.size();
    if (!budget_.take(bytes(entries))) return false;
    std::vector<Entry> old(entries);
    old.swap(entries_);
    for (const Entry& entry : old) {
      if (entry.key != 0) place(entry.key) = entry;
    }
    budget_.give_back(bytes(old.size()));
    return true;
  }

  static int64_t bytes(size_t entries) { return static_cast<int64_t>(entries * sizeof(Entry)); }

  MemoryBudget& budget_;
  std::vector<Entry> entries_;  // a power of two
  size_t size_ = 0;
};

}  // namespace pyseq::predictors
