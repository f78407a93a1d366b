// Step 1 of upsample_argmax: the best class of every source pixel, one source row at a time. Part of the vector code:
// included by upsample_argmax_lanes.cpp only.
#pragma once

#include "common/lanes.h"
#include "upsample_argmax/upsample_argmax_lanes.h"

namespace edgeseg {
namespace {

using Plan = UpsampleArgmaxPlan;
using Scratch = UpsampleArgmaxScratch;

constexpr std::uint8_t kMarked = 255;  // label of a source pixel with a logit that is not finite

// Pixels labelled together, and the extent of one entry of the row's maxima.
EDGESEG_INLINE int block_pixels(int width) {
  constexpr int kVectors = 4;
  return width >= kVectors * kLanes ? kVectors * kLanes : kLanes;
}

struct LabelledRow {
  std::uint8_t* labels;  // [width]
  float* maxima;         // [block][class][lane]: the greatest logit of every kLanes-th pixel of the block
  bool marked;           // any pixel is; then the maxima say nothing
};

template <int kVectors>
EDGESEG_INLINE bool label_block(const float* pixels, int classes, std::ptrdiff_t plane, std::uint8_t* labels,
                                float* maxima) {
  // More classes than the machine's prefetchers follow streams: fetch what is read some hundred iterations later.
  const int ahead = (1 + 128 / classes) * kVectors * kLanes;
  Floats best[kVectors], sum = {};
  Ints which[kVectors];
  for (int v = 0; v < kVectors; ++v) {
    best[v] = broadcast(-__builtin_inff());
    which[v] = Ints{};
  }
  for (int k = 0; k < classes; ++k, pixels += plane, maxima += kLanes) {
    for (int line = 0; line < kVectors * kLanes; line += 16) __builtin_prefetch(pixels + ahead + line);
    const Ints here = broadcast(k);
    Floats most = load<Floats>(pixels), total;
    for (int v = 0; v < kVectors; ++v) {
      const Floats x = load<Floats>(pixels + v * kLanes);
      const Ints better = x > best[v];
      best[v] = max(x, best[v]);
      which[v] = better ? here : which[v];
      total = v == 0 ? x : total + x;
      most = max(x, most);
    }
    sum += total;
    store(maxima, most);
  }
  // One infinity or NaN among its terms leaves a sum not finite, and then sum - sum is NaN: all kVectors pixels of the
  // lane are marked. Marking one too many, also when huge finite logits overflow, costs time, not correctness.
  const Floats zero = sum - sum;
  const Ints marked = ~(zero == zero);
  for (int v = 0; v < kVectors; ++v) {
    const Ints label = marked ? broadcast(static_cast<std::int32_t>(kMarked)) : which[v];
    store(labels + v * kLanes, __builtin_convertvector(label, Bytes));
  }
  return any_set(marked);
}

// The last block is moved back to end with the row, so a pixel lies in block pixel / block_pixels(width) all the same.
void label_row(const Plan& plan, const float* row, LabelledRow* labelled) {
  const int block = block_pixels(plan.width);
  float* maxima = labelled->maxima;
  labelled->marked = false;
  for (int next = 0; next < plan.width; next += block, maxima += plan.classes * kLanes) {
    const int at = next + block <= plan.width ? next : plan.width - block;
    labelled->marked |= block == kLanes
                            ? label_block<1>(row + at, plan.classes, plan.plane, labelled->labels + at, maxima)
                            : label_block<4>(row + at, plan.classes, plan.plane, labelled->labels + at, maxima);
  }
}

}  // namespace
}  // namespace edgeseg
