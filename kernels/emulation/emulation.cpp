// The scheduler of the emulation: one fiber per CUDA thread, run in a shuffled order from barrier to barrier.
#include "emulation/emulation.h"

#include <setjmp.h>
#include <ucontext.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <random>
#include <vector>

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace edgeseg::emulation {
namespace {

constexpr std::size_t kStackBytes = 128 << 10;
constexpr std::size_t kMostSharedBytes = 228 << 10;

enum class State { kReady, kAtBlockBarrier, kAtWarpBarrier, kReturned };

struct Fiber {
  ucontext_t context;  // of its first entry; swapcontext would ask the system at every change of places
  jmp_buf place;       // where it waits
  bool entered;
  std::unique_ptr<char[]> stack{new char[kStackBytes]};
  uint3 index;
  State state;
  unsigned mask;          // of the warp barrier it waits at
  std::uint64_t brought;  // to its warp operation
  std::uint64_t seen[32];  // what each lane of its warp brought
};

struct Block {
  std::vector<Fiber> fibers;
  int count = 0, running = 0;
  jmp_buf scheduler;
  const std::function<void()>* thread = nullptr;
  std::mt19937 random{1};
};

Block block;
std::mutex one_kernel_at_a_time;
alignas(128) unsigned char shared[kMostSharedBytes];

void enter() {
  (*block.thread)();
  block.fibers[block.running].state = State::kReturned;
  _longjmp(block.scheduler, 1);
}

// From the scheduler to a fiber, until that waits or returns.
void resume(Fiber& fiber) {
  if (_setjmp(block.scheduler) != 0) return;
  if (fiber.entered) _longjmp(fiber.place, 1);
  fiber.entered = true;
  setcontext(&fiber.context);
}

void wait(State state, unsigned mask) {
  Fiber& fiber = block.fibers[block.running];
  fiber.state = state;
  fiber.mask = mask;
  if (_setjmp(fiber.place) == 0) _longjmp(block.scheduler, 1);
}

bool all_in(int first, int last, State state, unsigned mask) {
  for (int i = first; i < last; ++i) {
    const Fiber& fiber = block.fibers[i];
    const bool asked = mask >> ((i - first) % 32) & 1;
    if (asked && fiber.state != State::kReturned && (fiber.state != state || fiber.mask != mask)) return false;
  }
  return true;
}

// Lets go of whoever waits for nobody any more; false when there is nobody.
bool release() {
  bool released = false;
  if (all_in(0, block.count, State::kAtBlockBarrier, ~0u)) {
    for (int i = 0; i < block.count; ++i) {
      Fiber& fiber = block.fibers[i];
      if (fiber.state == State::kAtBlockBarrier) fiber.state = State::kReady, released = true;
    }
  }
  for (int i = 0; i < block.count; ++i) {
    if (block.fibers[i].state != State::kAtWarpBarrier) continue;
    const int first = i / 32 * 32, last = std::min(first + 32, block.count);
    const unsigned mask = block.fibers[i].mask;
    if (!all_in(first, last, State::kAtWarpBarrier, mask)) continue;
    for (int j = first; j < last; ++j) {
      Fiber& fiber = block.fibers[j];
      if (!(mask >> (j - first) & 1) || fiber.state != State::kAtWarpBarrier) continue;
      for (int k = first; k < last; ++k) fiber.seen[k - first] = block.fibers[k].brought;
      fiber.state = State::kReady;
      released = true;
    }
  }
  return released;
}

void run_block() {
  std::vector<int> order(block.count);
  for (int i = 0; i < block.count; ++i) {
    Fiber& fiber = block.fibers[i];
    order[i] = i;
    const unsigned x = blockDim.x, y = blockDim.y;
    fiber.index = {i % x, i / x % y, i / (x * y)};
    fiber.state = State::kReady;
    fiber.entered = false;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = kStackBytes;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, enter, 0);
  }
  std::memset(shared, 0xff, sizeof(shared));
  do {
    std::shuffle(order.begin(), order.end(), block.random);
    for (const int i : order) {
      if (block.fibers[i].state != State::kReady) continue;
      block.running = i;
      threadIdx = block.fibers[i].index;
      resume(block.fibers[i]);
    }
  } while (release());
  for (int i = 0; i < block.count; ++i) {
    if (block.fibers[i].state != State::kReturned) {
      std::fprintf(stderr, "emulation: thread %d of block (%u, %u, %u) waits for ever at a barrier\n", i, blockIdx.x,
                   blockIdx.y, blockIdx.z);
      std::abort();
    }
  }
}

}  // namespace

int lane() { return block.running % 32; }
int warp() { return block.running / 32; }
void* shared_memory() { return shared; }
void block_barrier() { wait(State::kAtBlockBarrier, ~0u); }

const std::uint64_t* exchange(unsigned mask, std::uint64_t value) {
  Fiber& fiber = block.fibers[block.running];
  fiber.brought = value;
  wait(State::kAtWarpBarrier, mask);
  return fiber.seen;
}

void run(const Grid& grid, const std::function<void()>& thread) {
  const std::lock_guard<std::mutex> lock(one_kernel_at_a_time);
  if (grid.shared_bytes > kMostSharedBytes) std::abort();
  blockDim = grid.threads;
  gridDim = grid.blocks;
  block.count = static_cast<int>(grid.threads.x * grid.threads.y * grid.threads.z);
  block.thread = &thread;
  if (static_cast<int>(block.fibers.size()) < block.count) block.fibers.resize(block.count);
  for (unsigned z = 0; z < gridDim.z; ++z) {
    for (unsigned y = 0; y < gridDim.y; ++y) {
      for (unsigned x = 0; x < gridDim.x; ++x) {
        blockIdx = {x, y, z};
        run_block();
      }
    }
  }
}

}  // namespace edgeseg::emulation
