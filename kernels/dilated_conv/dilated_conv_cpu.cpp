// The host side of dilated_conv on CPU: what can be computed, the list of tasks, the pooled branch.
#include <algorithm>
#include <atomic>
#include <memory>
#include <new>
#include <numeric>
#include <vector>

#include "common/bilinear.h"
#include "dilated_conv/dilated_conv.h"
#include "dilated_conv/dilated_conv_lanes.h"
#include "dilated_conv/zones.h"

namespace edgeseg {
namespace {

struct Lanes {
  void (*run)(const ConvTask& task, const ConvScratch& scratch);
  bool vnni;
};

Lanes lanes_of(InstructionSet set) {
  switch (set == InstructionSet::kAutomatic ? best_instruction_set() : set) {
#if EDGESEG_X86
    case InstructionSet::kAvx2:
      return {avx2::conv_task, false};
    case InstructionSet::kAvx512:
      return {avx512::conv_task, __builtin_cpu_supports("avx512vnni") != 0};
#endif
    case InstructionSet::kLanes16:
      return {lanes16::conv_task, true};  // to test what machines with VNNI run
    default:
      return {portable::conv_task, false};
  }
}

// Pixels [first, first + rows) of a zone of an image, in rows, and outputs [output, output + outputs) of a branch.
struct Item {
  std::int64_t image;
  int branch;
  Zone zone;
  std::int64_t first;
  int rows, output, outputs;
  std::int64_t cost() const { return static_cast<std::int64_t>(zone.taps()) * rows * outputs; }
};

std::vector<Item> items_of(const ConvJob& job) {
  std::vector<Item> items;
  for (int b = 0; b < job.branches; ++b) {
    for (const Zone& zone :
         zones_of(static_cast<int>(job.H), static_cast<int>(job.W), job.branch[b].kernel, job.branch[b].dilation)) {
      for (std::int64_t first = 0; first < zone.pixels(); first += kConvRows) {
        const int rows = static_cast<int>(std::min<std::int64_t>(kConvRows, zone.pixels() - first));
        for (std::int64_t output = 0; output < job.O; output += kConvOutputs) {
          const int outputs = static_cast<int>(std::min<std::int64_t>(kConvOutputs, job.O - output));
          for (std::int64_t n = 0; n < job.N; ++n) {
            items.push_back({n, b, zone, first, rows, static_cast<int>(output), outputs});
          }
        }
      }
    }
  }
  std::stable_sort(items.begin(), items.end(), [](const Item& a, const Item& b) { return a.cost() > b.cost(); });
  return items;
}

// Memory of one thread at work.
struct Worker {
  static constexpr std::size_t kX = static_cast<std::size_t>(kConvRows + 12) * kConvRowPitch;
  static constexpr std::size_t kWeight = static_cast<std::size_t>(kConvDepth + 2) * kConvOutputs;
  // The 16 words more let it begin at a multiple of 64 bytes. Zeros: rows beyond a task's are multiplied too.
  std::unique_ptr<std::uint32_t[]> memory{new (std::nothrow) std::uint32_t[kX + kWeight + 16]()};
  int pixels[kConvRows];

  ConvScratch scratch() const {
    void* start = memory.get();
    std::size_t space = (kX + kWeight + 16) * sizeof(std::uint32_t);
    std::uint32_t* x =
        static_cast<std::uint32_t*>(std::align(64, (kX + kWeight) * sizeof(std::uint32_t), start, space));
    return {x, x + kX};
  }
};

void run_item(const ConvJob& job, const Item& item, Worker& worker, const Lanes& lanes) {
  const ConvBranch& branch = job.branch[item.branch];
  const int zone_width = item.zone.x.end - item.zone.x.begin;
  for (int i = 0; i < item.rows; ++i) {
    const std::int64_t at = item.first + i;  // at = (y - zone's y) * zone_width + (x - zone's x)
    const std::int64_t y = item.zone.y.begin + at / zone_width, x = item.zone.x.begin + at % zone_width;
    worker.pixels[i] = static_cast<int>(y * job.W + x);
  }
  const std::int64_t pixel = item.image * job.H * job.W;
  const std::size_t element = job.int8 ? 1 : sizeof(float);
  ConvTask task;
  task.int8 = job.int8;
  task.vnni = lanes.vnni;
  task.x = static_cast<const char*>(job.x) + pixel * job.x_pitch * element;
  task.y = static_cast<float*>(job.y) + pixel * job.y_pitch + item.branch * job.O + item.output;
  task.weight = static_cast<const char*>(branch.weight) + item.output * element;
  task.bias = branch.bias == nullptr ? nullptr : branch.bias + item.output;
  task.scale = branch.scale == nullptr ? nullptr : branch.scale + item.output;
  task.pixels = worker.pixels;
  task.rows = item.rows;
  task.outputs = item.outputs;
  task.width = job.W;
  task.x_pitch = job.x_pitch;
  task.y_pitch = job.y_pitch;
  task.C = static_cast<int>(job.C);
  task.O = static_cast<int>(job.O);
  task.kernel = branch.kernel;
  task.dilation = branch.dilation;
  task.first_row_tap = item.zone.y.first_tap;
  task.last_row_tap = item.zone.y.last_tap;
  task.first_column_tap = item.zone.x.first_tap;
  task.last_column_tap = item.zone.x.last_tap;
  task.low = job.low;
  task.high = job.high;
  lanes.run(task, worker.scratch());
}

}  // namespace

const char* conv_fault(const ConvJob& job) {
  if (job.N < 0 || job.N > kMaxSide) return "a batch not in [0, 2^22]";
  for (const std::int64_t size : {job.H, job.W, job.C, job.O}) {
    if (size < 1 || size > kMaxSide) return "a height, width or number of channels not in [1, 2^22]";
  }
  if (static_cast<double>(job.N) * job.H * job.W >= 0x1p31) return "2^31 or more pixels";
  if (job.branches < 1 || job.branches > kMaxConvBranches) return "a number of branches not in [1, 7]";
  if (job.x_pitch < job.C || job.y_pitch < job.parts() * job.O) return "a pitch below the channels of a pixel";
  if (std::max(job.x_pitch, job.y_pitch) > (std::int64_t{1} << 32)) return "a pitch above 2^32";
  std::size_t zones = 0;
  for (int b = 0; b < job.branches; ++b) {
    const ConvBranch& branch = job.branch[b];
    if (branch.kernel < 1 || branch.kernel > kMaxConvKernel || branch.kernel % 2 == 0)
      return "a kernel size not 1, 3, 5 or 7";
    if (branch.dilation < 1 || branch.dilation > kMaxSide) return "a dilation not in [1, 2^22]";
    // Beyond it int32 sums of products up to 2^14 could overflow.
    if (job.int8 && branch.kernel * branch.kernel * job.C >= 1 << 17) return "2^17 or more int8 products a sum";
    zones += zones_of(static_cast<int>(job.H), static_cast<int>(job.W), branch.kernel, branch.dilation).size();
  }
  return zones > kMaxConvZones ? "more than 63 zones of constant taps in all branches" : nullptr;
}

double conv_macs(const ConvJob& job) {
  double macs = 0;
  for (int b = 0; b < job.branches; ++b) {
    for (const Zone& zone :
         zones_of(static_cast<int>(job.H), static_cast<int>(job.W), job.branch[b].kernel, job.branch[b].dilation)) {
      macs += static_cast<double>(zone.pixels()) * zone.taps();
    }
  }
  return macs * static_cast<double>(job.N) * static_cast<double>(job.C) * static_cast<double>(job.O);
}

bool conv_cpu(const ConvJob& job, InstructionSet instruction_set, int num_threads, const ParallelFor& parallel_for) {
  if (job.N == 0) return true;
  try {
    const std::vector<Item> items = items_of(job);
    const Lanes lanes = lanes_of(instruction_set);
    const std::int64_t pools = job.has_pool ? job.N : 0, count = pools + static_cast<std::int64_t>(items.size());
    std::atomic<std::int64_t> next{0};
    std::atomic<bool> out_of_memory{false};
    // Every thread takes the next of the list, whatever way parallel_for deals out its indices.
    parallel_for(std::min<std::int64_t>(std::max(num_threads, 1), count), [&](std::int64_t) {
      try {
        Worker worker;
        if (!worker.memory) throw std::bad_alloc();
        for (std::int64_t i = next.fetch_add(1); i < count; i = next.fetch_add(1)) {
          if (i >= pools) {
            run_item(job, items[i - pools], worker, lanes);
          } else {
            conv_pool_cpu(job, i);
          }
        }
      } catch (const std::bad_alloc&) {
        out_of_memory = true;
      }
    });
    return !out_of_memory;
  } catch (const std::bad_alloc&) {
    return false;
  }
}

}  // namespace edgeseg
