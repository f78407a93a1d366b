#include "common/thread_pool.h"

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#endif
#if !defined(_WIN32)
#include <unistd.h>
#endif

namespace edgeseg {
namespace {

long process_id() {
#if defined(_WIN32)
  return 0;  // no fork
#else
  return static_cast<long>(getpid());
#endif
}

class Pool {
 public:
  explicit Pool(long owner) : owner_(owner) {}
  long owner() const { return owner_; }

  // False, with nothing done, while another thread is inside.
  bool run(int num_threads, std::int64_t count, const std::function<void(std::int64_t)>& body) {
    std::unique_lock<std::mutex> turn(turn_, std::try_to_lock);
    if (!turn.owns_lock()) return false;
    grow(num_threads - 1);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      body_ = &body;
      count_ = count;
      next_.store(0);
      seats_ = num_threads - 1;
    }
    wake_.notify_all();
    work(body, count);
    std::unique_lock<std::mutex> lock(mutex_);
    seats_ = 0;  // whoever wakes from here on finds no seat
    done_.wait(lock, [this] { return working_ == 0; });
    return true;
  }

 private:
  void work(const std::function<void(std::int64_t)>& body, std::int64_t count) {
    for (std::int64_t i = next_.fetch_add(1); i < count; i = next_.fetch_add(1)) body(i);
  }

  void grow(int workers) {
    while (workers_ < workers) {
      try {
        std::thread([this] { loop(); }).detach();
      } catch (const std::system_error&) {
        return;  // fewer threads than asked for; the work is done all the same
      }
      ++workers_;
    }
  }

  void loop() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      wake_.wait(lock, [this] { return seats_ > 0; });
      --seats_;
      ++working_;
      const auto* body = body_;
      const std::int64_t count = count_;
      lock.unlock();
      work(*body, count);
      lock.lock();
      if (--working_ == 0) done_.notify_one();
    }
  }

  const long owner_;
  std::mutex turn_;   // held by the one caller inside
  int workers_ = 0;   // guarded by turn_
  std::mutex mutex_;  // guards what follows
  std::condition_variable wake_, done_;
  const std::function<void(std::int64_t)>* body_ = nullptr;
  std::int64_t count_ = 0;
  int seats_ = 0;    // workers that may still join the current call
  int working_ = 0;  // workers inside it
  std::atomic<std::int64_t> next_{0};
};

// The pool of this process. Never destroyed: its sleeping threads may outlive static destructors.
Pool* pool() {
  static std::atomic<Pool*> current{nullptr};
  Pool* seen = current.load();
  // After fork the child has the parent's pool but none of its threads, and perhaps a locked mutex: leave it alone.
  if (seen != nullptr && seen->owner() == process_id()) return seen;
  Pool* fresh = new Pool(process_id());
  if (current.compare_exchange_strong(seen, fresh)) return fresh;
  delete fresh;  // another thread was first; nobody has seen ours
  return seen;
}

}  // namespace

int available_cpus() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) {
    const int count = CPU_COUNT(&set);
    if (count > 0) return count;
  }
#endif
  const unsigned count = std::thread::hardware_concurrency();
  return count > 0 ? static_cast<int>(count) : 1;
}

void run_in_pool(int num_threads, std::int64_t count, const std::function<void(std::int64_t)>& body) {
  if (num_threads > 1 && count > 1 && pool()->run(num_threads, count, body)) return;
  for (std::int64_t i = 0; i < count; ++i) body(i);
}

}  // namespace edgeseg
