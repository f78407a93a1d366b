// pooled[n, c, bin b, i, j] = mean of x[n, c, y, x] over y in [floor(i H / b), ceil((i + 1) H / b)), x likewise over W
//
// channels_first  x (N, C, H, W) contiguous      pooled  (N, C, positions)
// channels_last   x (N, H, W, C) contiguous      pooled  (N, positions, C)
//
// x and pooled are both float32, float16 or bfloat16. positions = sum of b^2 over the bins, bin after bin, each row by
// row: 50 for PSPNet's (1, 2, 3, 6). Every bin equals torch's adaptive_avg_pool2d(x, b); where b does not divide a
// side, neighbouring means overlap by one row or column. b may exceed the side.
//
// Rounding  sums in float32, one division by the count, one rounding to the output's type. The order of the sums is
//           its own, so results differ from torch's in the last places; it depends on shape and layout alone, so that
//           threads and instruction sets change nothing.
// How       The ends of all bins cut each axis into segments (grid.h): six for (1, 2, 3, 6) on a multiple of 6, eleven
//           at the most. One read of x gives the sums over their products, the cells, from which every mean is added
//           up: one read of x where four poolings make four.
//   CPU     One lane is a channel. channels_last (lanes_last.h): one task adds up a range of channels, pixel by pixel.
//           channels_first (lanes_first.h): one task is some groups of as many planes as there are lanes; rows are
//           added up as they lie, and what is left of a segment is transposed.
//   CUDA    channels_first: one block is one plane. channels_last, and planes too large for that: one launch for
//           cells, into a workspace, and one for means.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/element.h"
#include "common/instruction_set.h"
#include "common/thread_pool.h"

namespace edgeseg {

constexpr int kMostBins = 16;
constexpr int kMostBinRows = 64;  // the bins' sum: what all of them have in rows

struct PyramidPoolingShape {
  std::int64_t N, C, H, W;
  const std::int32_t* bins;
  std::int64_t bin_count;
  bool channels_last;
};

// Null when the functions below take the shape; otherwise what is wrong with it.
const char* pyramid_pooling_fault(const PyramidPoolingShape& shape);

// Sum of b^2.
std::int64_t pyramid_pooling_positions(const PyramidPoolingShape& shape);

// False when memory runs out; everything else was checked by the caller.
bool pyramid_pooling_cpu(const void* x, void* pooled, Element element, const PyramidPoolingShape& shape,
                         InstructionSet instruction_set, int num_threads, const ParallelFor& parallel_for);

// Bytes of device memory that pyramid_pooling_cuda wants as its workspace. With CUDA only.
std::int64_t pyramid_pooling_workspace(const PyramidPoolingShape& shape);

// A cudaError_t. stream is a cudaStream_t.
int pyramid_pooling_cuda(const void* x, void* pooled, void* workspace, Element element,
                         const PyramidPoolingShape& shape, void* stream);

}  // namespace edgeseg
