// labels[n, y, x] = argmax_c value(n, c, y, x), value = bilinear interpolation of logits[n, c] at output pixel (y, x)
//
// logits  (N, C, h, w) float32 contiguous       labels  (N, H, W) uint8       1 <= C <= 255
//
// Equals torch's interpolate(logits, (H, W), mode="bilinear", align_corners=False).argmax(1); nothing of size
// (N, C, H, W) is ever made.
//   Geometry  pixel centres at +0.5, source coordinates clamped at the border (common/bilinear.h); any size, up or
//   down. Ties      the lowest class wins; -0.0 ties with 0.0. NaN       wins over every number, the first NaN over
//   later ones. A weight of 0 on an infinite logit makes NaN. Rounding  float32, horizontally then vertically, fused
//   where the machine has FMA. Two classes whose values differ by
//             less than a few units in the last place may swap; torch's own kernels differ among themselves there.
//             Where sums and products are exact (small integers or quarters at x2, x4, x8) labels are exact, ties too.
//
// How (CPU)
//   A cell is what lies between four neighbouring source pixels; it owns the output pixels whose low taps are its top
//   left corner. Interpolation is a convex combination and, in the weights form, monotone even when rounded. Hence:
//     unanimous  the four corners have the same best class: it is best all over the cell. Filled, not computed.
//     pruned     M = max over classes k of (least corner of k): some class is nowhere below M, so a class whose
//     greatest
//                corner is below M can neither win nor tie. M is taken over the corners' best classes only, which can
//                but lower it, and is lowered by |M| 2^-20 for the rounding of the weights' sum.
//   Step 1  (lanes_label.h) the best class of every source pixel, 255 marking logits that are not finite; and each
//           class's maxima over blocks of pixels, which let step 2 pass over most classes without reading them.
//   Step 2  (lanes_tile.h) per row of cells, per tile of as many cells as the machine has lanes: fill it, or list the
//           classes that can win in it and interpolate those. Marked tiles are computed over all classes, NaN-aware.
//   One task is a band of cell rows of one image. Bands share nothing; labels do not depend on the number of threads.
#pragma once

#include <cstdint>

#include "common/instruction_set.h"
#include "common/thread_pool.h"

namespace edgeseg {

constexpr int kMaxClasses = 255;            // 255 itself is free as a mark
constexpr std::int64_t kMaxSide = 1 << 22;  // out + 0.5 is exact in float32 below 2^23

struct UpsampleArgmaxShape {
  std::int64_t N, C, h, w, H, W;
};

// Nothing is written and false returned when memory runs out; everything else was checked by the caller.
bool upsample_argmax_cpu(const float* logits, std::uint8_t* labels, const UpsampleArgmaxShape& shape,
                         InstructionSet instruction_set, int num_threads, const ParallelFor& parallel_for);

// Null when upsample_argmax_cpu takes the shape; otherwise what is wrong with it.
const char* upsample_argmax_fault(const UpsampleArgmaxShape& shape);

}  // namespace edgeseg
