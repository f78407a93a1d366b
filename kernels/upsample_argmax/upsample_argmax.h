// labels[n, y, x] = argmax_c value(n, c, y, x), value = bilinear interpolation of logits[n, c] at output pixel (y, x)
// margin[n, y, x] = the greatest value minus the second greatest, if it is asked for
//
// logits  (N, C, h, w) float32, float16 or bfloat16, contiguous      1 <= C <= 65535
// labels  (N, H, W) uint8 for C <= 255, int32 above                  margin  (N, H, W) float32 or null
//
// Equals torch's interpolate(logits, (H, W), mode="bilinear", align_corners=...).argmax(1) in float32; nothing of size
// (N, C, H, W) is ever made.
//   Geometry  common/bilinear.h; any size, up or down.
//   Ties      the lowest class wins; -0.0 ties with 0.0.
//   NaN       wins over every number, the first NaN over later ones; its margin is NaN. A weight of 0 on an infinite
//             logit makes NaN.
//   One class its margin is infinite.
//   Rounding  float32, horizontally then vertically, fused where the machine has FMA. Two classes whose values differ by
//             less than a few units in the last place may swap; torch's own kernels differ among themselves there.
//             Where sums and products are exact (small integers or quarters at x2, x4, x8) labels are exact, ties too.
//
// Why most of it need not be computed
//   A cell is what lies between four neighbouring source pixels; it owns the output pixels whose low taps are its top
//   left corner. Interpolation is a convex combination and, in the weights form, monotone even when rounded. Hence:
//     unanimous  the four corners have the same best class: it is best all over the cell. Filled, not computed.
//     pruned     M = max over classes k of (least corner of k): some class is nowhere below M, so a class whose greatest
//                corner is below M can neither win nor tie. M is taken over the corners' best classes only, which can
//                but lower it, and is lowered by |M| 2^-20 for the rounding of the weights' sum.
//   A margin needs the second best class and labels beyond 255 do not fit the lists: there every class is interpolated.
//
// How (CPU)
//   Step 1  (lanes_label.h) the best class of every source pixel, 255 marking logits that are not finite; and each
//           class's maxima over blocks of pixels, which let step 2 pass over most classes without reading them.
//   Step 2  (lanes_tile.h) per row of cells, per tile of as many cells as the machine has lanes: fill it, or list the
//           classes that can win in it and interpolate those. Marked tiles are computed over all classes, NaN-aware.
//   One task is a band of cell rows of one image. Bands share nothing; labels do not depend on the number of threads.
//   How (CUDA): upsample_argmax.cu.
#pragma once

#include <cstdint>

#include "common/bilinear.h"
#include "common/element.h"
#include "common/instruction_set.h"
#include "common/thread_pool.h"

namespace edgeseg {

constexpr int kMaxClasses = 255;        // of uint8 labels; 255 itself is free as a mark
constexpr int kMaxWideClasses = 65535;  // of int32 labels

struct UpsampleArgmaxShape {
  std::int64_t N, C, h, w, H, W;
};

// Nothing is written and false returned when memory runs out; everything else was checked by the caller.
bool upsample_argmax_cpu(const void* logits, Element element, void* labels, float* margin,
                         const UpsampleArgmaxShape& shape, bool align_corners, InstructionSet instruction_set,
                         int num_threads, const ParallelFor& parallel_for);

// The same on the current CUDA device, started on the stream (a cudaStream_t); a cudaError_t.
int upsample_argmax_cuda(const void* logits, Element element, void* labels, float* margin,
                         const UpsampleArgmaxShape& shape, bool align_corners, void* stream);

// Null when both take the shape; otherwise what is wrong with it.
const char* upsample_argmax_fault(const UpsampleArgmaxShape& shape);

}  // namespace edgeseg
