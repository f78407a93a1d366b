// confusion_matrix on CPU. The specification is confusion_matrix.h. No vector code: what is not one comparison of four
// words is a look-up and an increment.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>

#include "confusion_matrix/confusion_matrix.h"

namespace edgeseg {
namespace {

constexpr int kBlock = 32, kWord = 8;  // pixels

// One task's counts: (K + 2) rows of K + 1, the last one for what is ignored.
class Counter {
 public:
  Counter(int classes, int ignore_index)
      : columns_(classes + 1),
        size_(static_cast<std::size_t>(columns_ + 1) * columns_),
        counts_(new (std::nothrow) std::uint32_t[2 * size_]()) {
    for (int id = 0; id < 256; ++id) {
      column_[id] = static_cast<std::uint32_t>(std::min(id, classes));
      row_[id] = static_cast<std::uint32_t>(id == ignore_index ? columns_ : std::min(id, classes)) * columns_;
    }
  }

  bool has_memory() const { return counts_ != nullptr; }

  void count(const std::uint8_t* labels, const std::uint8_t* target, std::int64_t pixels) {
    for (; pixels >= kBlock; pixels -= kBlock, labels += kBlock, target += kBlock) {
      if (count_run<kBlock>(labels, target)) continue;
      for (int i = 0; i < kBlock; i += kWord) {
        if (!count_run<kWord>(labels + i, target + i)) count_singly(labels + i, target + i, kWord);
      }
    }
    count_singly(labels, target, pixels);
  }

  void count(const std::int32_t* labels, const std::int32_t* target, std::int64_t pixels) {
    count_singly(labels, target, pixels);
  }

  void add_to(std::int64_t* counts) const {
    for (int i = 0; i < columns_ * columns_; ++i)
      counts[i] += static_cast<std::int64_t>(counts_[i]) + counts_[size_ + i];
  }

 private:
  // Counts kPixels of one label and one target; false, with nothing counted, where they are not.
  template <int kPixels>
  bool count_run(const std::uint8_t* labels, const std::uint8_t* target) {
    const std::uint64_t label = labels[0] * 0x0101010101010101u, truth = target[0] * 0x0101010101010101u;
    std::uint64_t differ = 0;
    for (int i = 0; i < kPixels; i += kWord) differ |= (word(labels + i) ^ label) | (word(target + i) ^ truth);
    if (differ != 0) return false;
    counts_[row_[target[0]] + column_[labels[0]]] += kPixels;
    return true;
  }

  static std::uint64_t word(const std::uint8_t* ids) {
    std::uint64_t word;
    std::memcpy(&word, ids, sizeof(word));
    return word;
  }

  std::uint32_t row(std::uint8_t id) const { return row_[id]; }
  std::uint32_t column(std::uint8_t id) const { return column_[id]; }
  std::uint32_t row(std::int32_t id) const {
    return id >= 0 && id < 256 ? row_[id] : static_cast<std::uint32_t>((columns_ - 1) * columns_);
  }
  std::uint32_t column(std::int32_t id) const {
    return id >= 0 && id < 256 ? column_[id] : static_cast<std::uint32_t>(columns_ - 1);
  }

  template <typename Id>
  void count_singly(const Id* labels, const Id* target, std::int64_t pixels) {
    std::uint32_t* const even = counts_.get();
    std::uint32_t* const odd = even + size_;
    std::int64_t i = 0;
    for (; i + 2 <= pixels; i += 2) {
      ++even[row(target[i]) + column(labels[i])];
      ++odd[row(target[i + 1]) + column(labels[i + 1])];
    }
    if (i < pixels) ++even[row(target[i]) + column(labels[i])];
  }

  int columns_;
  std::size_t size_;
  std::unique_ptr<std::uint32_t[]> counts_;
  std::uint32_t row_[256], column_[256];  // where an id's row begins; its column
};

template <typename Id>
bool count_all(const ConfusionMatrix& call, int num_threads, const ParallelFor& parallel_for) {
  // Counts of a task are 32 bits wide; and a task is worth having its own counts cleared and added up.
  constexpr std::int64_t kMost = std::int64_t{1} << 30, kFewest = 1 << 16;
  const std::int64_t share = (call.count + num_threads - 1) / num_threads;
  const std::int64_t per_task = (std::clamp(share, kFewest, kMost) + kBlock - 1) / kBlock * kBlock;
  std::atomic<bool> out_of_memory{false};
  std::mutex adding;
  parallel_for((call.count + per_task - 1) / per_task, [&](std::int64_t task) {
    const std::int64_t first = task * per_task, pixels = std::min(per_task, call.count - first);
    Counter counter(static_cast<int>(call.K), call.ignore_index);
    if (!counter.has_memory()) return out_of_memory.store(true);
    counter.count(static_cast<const Id*>(call.labels) + first, static_cast<const Id*>(call.target) + first, pixels);
    const std::lock_guard<std::mutex> lock(adding);
    counter.add_to(call.counts);
  });
  return !out_of_memory;
}

}  // namespace

bool confusion_matrix_cpu(const ConfusionMatrix& call, int num_threads, const ParallelFor& parallel_for) {
  std::fill_n(call.counts, (call.K + 1) * (call.K + 1), 0);
  return call.type == IdType::kU8 ? count_all<std::uint8_t>(call, num_threads, parallel_for)
                                  : count_all<std::int32_t>(call, num_threads, parallel_for);
}

}  // namespace edgeseg
