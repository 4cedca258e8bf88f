// Threads that work through one forward pass together.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace retnet {

// A pass has some two hundred meeting points, a few microseconds apart: a library's thread pool would spend longer on handing
// the work out than on the work. The caller is one of the team.
class Team {
 public:
  explicit Team(int size) : size_(size < 1 ? 1 : size) {
    for (int number = 1; number < size_; number++) threads_.emplace_back([this, number] { serve(number); });
  }

  ~Team() {
    {
      std::lock_guard<std::mutex> guard(mutex_);
      ending_ = true;
      round_++;
    }
    wake_.notify_all();
    for (auto& thread : threads_) thread.join();
  }

  int size() const { return size_; }

  // Runs work(number) on every thread, number from 0; returns when all are done.
  template <class Work>
  void run(Work&& work) {
    if (size_ > 1) {
      std::lock_guard<std::mutex> guard(mutex_);
      job_ = std::ref(work);
      round_++;
    }
    wake_.notify_all();
    work(0);
    meet();
  }

  // Returns once every thread of the team has called it.
  void meet() {
    if (size_ == 1) return;
    const uint32_t phase = phase_.load(std::memory_order_acquire);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) == size_ - 1) {
      arrived_.store(0, std::memory_order_relaxed);
      phase_.store(phase + 1, std::memory_order_release);
      phase_.notify_all();
      return;
    }
    // The others are microseconds away, unless the machine is busy with something else: then spinning would take from them the
    // very core that they need, so wait asleep.
    for (int spin = 0; spin < kSpins; spin++) {
      if (phase_.load(std::memory_order_acquire) != phase) return;
      pause();
    }
    while (phase_.load(std::memory_order_acquire) == phase) phase_.wait(phase, std::memory_order_acquire);
  }

 private:
  static void pause() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
  }

  static constexpr int kSpins = 2000;  // of about 15 ns

  void serve(int number) {
    uint64_t seen = 0;
    while (true) {
      {
        std::unique_lock<std::mutex> guard(mutex_);
        wake_.wait(guard, [&] { return round_ != seen; });
        seen = round_;
        if (ending_) return;
      }
      job_(number);
      meet();
    }
  }

  const int size_;
  std::vector<std::thread> threads_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::function<void(int)> job_;
  uint64_t round_ = 0;
  bool ending_ = false;
  std::atomic<int> arrived_{0};
  std::atomic<uint32_t> phase_{0};
};

// The part of `count` things that is this thread's, in multiples of `unit`.
struct Part {
  int64_t begin, end;
};

inline Part part_of(int64_t count, int number, int team, int64_t unit = 1) {
  const int64_t units = (count + unit - 1) / unit;
  const int64_t begin = units * number / team * unit, end = units * (number + 1) / team * unit;
  return {begin < count ? begin : count, end < count ? end : count};
}

}  // namespace retnet
