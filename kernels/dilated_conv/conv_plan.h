// What a launch of dilated_conv.cu is told: the job and its zones as a list of items, longest first. Plain data, passed
// as the kernel's parameter: there is no list in device memory to write.
#pragma once

#include <algorithm>
#include <cstdint>

#include "dilated_conv/dilated_conv.h"
#include "dilated_conv/zones.h"

namespace edgeseg {

constexpr int kConvTile = 128;       // pixels, and outputs, of a block's tile
constexpr int kConvSliceBytes = 64;  // of a pixel's or output's channels, per step along k
constexpr int kPoolChannels = 64;    // of x that one item averages
constexpr int kPoolOutputs = 16;     // of the pooled branch that one item makes

// A zone of a branch, or (branch = -1) the outputs of the pooled branch. Items [first_item, next entry's first_item):
// for each tile of pixels, for each of `splits` parts of the sum, for each tile of outputs.
struct ConvEntry {
  std::int16_t branch, splits;
  std::int8_t first_row_tap, first_column_tap, column_taps, taps;
  int y, x, height, width;
  int first_item;
  int first_split_tile;  // of the tiles whose sums are split; counts them over all entries
  int first_partial;     // of the partial sums, likewise
};

struct ConvKernelBranch {
  const char* weight;
  const float* bias;
  const float* scale;
  int kernel, dilation;
};

struct ConvPlan {
  const char* x;
  void* y;
  std::int64_t x_pitch_bytes, y_pitch;
  int N, H, W, C, O;
  int output_tiles;
  float low, high;
  bool aligned;    // every address that a load of 16 bytes begins at is a multiple of 16
  bool half;       // y is float16
  int slices;      // steps along the channels of one tap
  int branches;    // the pooled one comes after them
  int pool_items;  // items [0, pool_items) average x
  int entries;
  int items;
  // In the workspace; null where nothing needs them.
  int* ticket;      // the next item to take, so that an item is under way before any later one
  int* pool_done;   // [N] averaging items done
  int* split_done;  // [split tiles] parts done
  float* mean;      // [N][C]
  void* partial;    // [partials][kConvTile][kConvTile] float or int
  ConvKernelBranch branch[kMaxConvBranches + 1];
  ConvEntry entry[kMaxConvZones + 1];
};
static_assert(sizeof(ConvPlan) <= 4096, "what a kernel's parameters may take before CUDA 12.1 and sm_70");

struct ConvWorkspace {
  std::int64_t counter_bytes = 0, mean_bytes = 0, partial_bytes = 0;  // one after the other, each a multiple of 256
  std::int64_t bytes() const { return counter_bytes + mean_bytes + partial_bytes; }
};

// `slots`: blocks that the GPU runs at a time. Sums are split where single items would outlast their fair share.
inline ConvPlan conv_plan(const ConvJob& job, int slots, void* workspace, ConvWorkspace* needed) {
  constexpr int kFewestSlices = 32;  // of a part: below, adding the parts up costs more than waiting
  ConvPlan plan = {};
  const int element = job.int8 ? 1 : static_cast<int>(bytes_of(job.element));
  plan.x = static_cast<const char*>(job.x);
  plan.y = job.y;
  plan.x_pitch_bytes = job.x_pitch * element;
  plan.y_pitch = job.y_pitch;
  plan.N = static_cast<int>(job.N), plan.H = static_cast<int>(job.H), plan.W = static_cast<int>(job.W);
  plan.C = static_cast<int>(job.C), plan.O = static_cast<int>(job.O);
  plan.low = job.low, plan.high = job.high;
  plan.half = job.element == Element::kF16;
  plan.branches = job.branches;
  plan.output_tiles = (plan.O + kConvTile - 1) / kConvTile;
  plan.slices = (plan.C * element + kConvSliceBytes - 1) / kConvSliceBytes;

  const auto multiple = [](const void* address, std::int64_t bytes) {
    return reinterpret_cast<std::uintptr_t>(address) % static_cast<std::uintptr_t>(bytes) == 0;
  };
  plan.aligned = multiple(job.x, 16) && plan.x_pitch_bytes % 16 == 0 && plan.C * element % 16 == 0;
  std::int64_t work = 0;  // slices of all items
  ConvEntry* entry = plan.entry;
  for (int b = 0; b < job.parts(); ++b) {
    const ConvBranch& branch = b < job.branches ? job.branch[b] : job.pool;
    plan.branch[b] = {static_cast<const char*>(branch.weight), branch.bias, branch.scale, branch.kernel,
                      branch.dilation};
    plan.aligned = plan.aligned && multiple(branch.weight, 16);
    if (b == job.branches) break;
    for (const Zone& zone : zones_of(plan.H, plan.W, branch.kernel, branch.dilation)) {
      const int columns = zone.x.last_tap - zone.x.first_tap;
      *entry = {};
      entry->branch = static_cast<std::int16_t>(b);
      entry->first_row_tap = static_cast<std::int8_t>(zone.y.first_tap);
      entry->first_column_tap = static_cast<std::int8_t>(zone.x.first_tap);
      entry->column_taps = static_cast<std::int8_t>(columns);
      entry->taps = static_cast<std::int8_t>(zone.taps());
      entry->y = zone.y.begin, entry->height = zone.y.end - zone.y.begin;
      entry->x = zone.x.begin, entry->width = zone.x.end - zone.x.begin;
      work += zone.taps() * (plan.N * zone.pixels() + kConvTile - 1) / kConvTile * plan.output_tiles * plan.slices;
      ++entry;
    }
  }
  if (job.has_pool) {
    *entry = {};
    entry->branch = -1, entry->taps = 1, entry->splits = 1;
    plan.pool_items = plan.N * ((plan.C + kPoolChannels - 1) / kPoolChannels);
    ++entry;
  }
  plan.entries = static_cast<int>(entry - plan.entry);

  const std::int64_t fair = std::max<std::int64_t>(kFewestSlices, (work + slots - 1) / slots);
  for (int i = 0; i < plan.entries; ++i) {
    const std::int64_t slices = static_cast<std::int64_t>(plan.entry[i].taps) * plan.slices;
    if (plan.entry[i].branch >= 0)
      plan.entry[i].splits = static_cast<std::int16_t>(std::min<std::int64_t>(64, (slices + fair - 1) / fair));
  }
  // Longest items first; the pooled branch, which waits for its averages, before convolutions of its own length.
  std::stable_sort(plan.entry, entry, [](const ConvEntry& a, const ConvEntry& b) {
    const int left = a.taps * b.splits, right = b.taps * a.splits;
    return left != right ? left > right : a.branch < 0 && b.branch >= 0;
  });

  int item = plan.pool_items, split_tiles = 0, partials = 0;
  for (int i = 0; i < plan.entries; ++i) {
    ConvEntry& e = plan.entry[i];
    e.first_item = item;
    if (e.branch < 0) {
      item += plan.N * ((plan.O + kPoolOutputs - 1) / kPoolOutputs);
      continue;
    }
    const int tiles = (plan.N * e.height * e.width + kConvTile - 1) / kConvTile * plan.output_tiles;
    e.first_split_tile = split_tiles, e.first_partial = partials;
    if (e.splits > 1) split_tiles += tiles, partials += tiles * e.splits;
    item += tiles * e.splits;
  }
  plan.items = item;

  const auto rounded = [](std::int64_t bytes) { return (bytes + 255) / 256 * 256; };
  if (job.has_pool || partials > 0)
    needed->counter_bytes = rounded(static_cast<std::int64_t>(sizeof(int)) * (1 + plan.N + split_tiles));
  if (job.has_pool) needed->mean_bytes = rounded(static_cast<std::int64_t>(sizeof(float)) * plan.N * plan.C);
  needed->partial_bytes = static_cast<std::int64_t>(sizeof(float)) * partials * kConvTile * kConvTile;
  if (workspace != nullptr && needed->bytes() > 0) {
    char* start = static_cast<char*>(workspace);
    plan.ticket = reinterpret_cast<int*>(start);
    plan.pool_done = plan.ticket + 1;
    plan.split_done = plan.pool_done + plan.N;
    plan.mean = reinterpret_cast<float*>(start + needed->counter_bytes);
    plan.partial = start + needed->counter_bytes + needed->mean_bytes;
  }
  return plan;
}

}  // namespace edgeseg
