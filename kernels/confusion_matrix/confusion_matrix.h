// counts[t, p] = pixels whose target is t and whose label is p, over the pixels whose target is not ignore_index
//
// labels, target  (count) uint8 or int32      counts  (K + 1, K + 1) int64      1 <= K <= 255
//
// Index K stands for every id that is no class: row K for targets, column K for labels. All its counts are 0 for clean
// data, so that the caller learns of the rest without a second look, and without waiting for a GPU.
//
// CPU   One task is a run of pixels with counts of its own, in 32 bits, added to the others' at its end. 32 pixels of
//       one label and one target, as most of them are, count at once, and so do 8; the others go in turn into one of
//       two sets of counts: of two neighbours of one kind, the second would wait for the first to be written.
// CUDA  One thread takes 16 pixels at a time and counts runs; a warp of one run adds once. Counts are shared memory's
//       where (K + 1)^2 of them fit, and go to counts at the end; else counts itself.
#pragma once

#include <cstdint>

#include "common/thread_pool.h"

namespace edgeseg {

enum class IdType : int { kU8 = 0, kI32 = 1 };

struct ConfusionMatrix {
  const void* labels;
  const void* target;
  IdType type;
  std::int64_t count, K;
  int ignore_index;  // in [0, 255]
  std::int64_t* counts;
};

// False when memory runs out, the counts being unfinished then.
bool confusion_matrix_cpu(const ConfusionMatrix& call, int num_threads, const ParallelFor& parallel_for);

// A cudaError_t. stream is a cudaStream_t.
int confusion_matrix_cuda(const ConfusionMatrix& call, void* stream);

}  // namespace edgeseg
