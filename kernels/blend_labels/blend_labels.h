// out[n, y, x, c] = (image[n, y, x, c] * (256 - share) + palette[labels[n, y, x], c] * share + 128) >> 8
//
// image, out  (N, H, W, 3) uint8      labels  (N, H, W) uint8      palette  (K, 3) uint8, contiguous
//
// The mean of image and colour, the colour counting share / 256 with share in [0, 256], rounded to the nearest, halves
// up: exact in 16-bit integers (255 * 256 + 128 < 2^16), so every path gives the same bytes. A label that is no class
// (>= K; 255 is void and never below K) leaves its pixel as it is.
// Pixels of a row lie side by side; rows and images lie any number of bytes apart. out may be the image itself.
//
// CPU   One task is a band of rows. Colours come in regions: 32 pixels of one label take one multiply-add a value, with
//       the colours' shares held ready; where labels differ, the shares are looked up pixel by pixel first.
// CUDA  One thread makes 4 pixels (3 words of the image, one of labels) in every 4th row of its block.
#pragma once

#include <cstdint>

#include "common/instruction_set.h"
#include "common/thread_pool.h"

namespace edgeseg {

struct BlendLabelsShape {
  std::int64_t N, H, W, K;
};

// Bytes from one row to the next, from one image to the next.
struct Pitch {
  std::int64_t row, image;
};

struct BlendLabels {
  const std::uint8_t* image;
  const std::uint8_t* labels;
  const std::uint8_t* palette;
  std::uint8_t* out;
  Pitch image_pitch, labels_pitch, out_pitch;
  int share;
};

// Null when the functions below take the arguments; otherwise what is wrong with them.
const char* blend_labels_fault(const BlendLabels& blend, const BlendLabelsShape& shape);

void blend_labels_cpu(const BlendLabels& blend, const BlendLabelsShape& shape, InstructionSet instruction_set,
                      const ParallelFor& parallel_for);

// A cudaError_t. All addresses are of device memory, the palette's too; stream is a cudaStream_t.
int blend_labels_cuda(const BlendLabels& blend, const BlendLabelsShape& shape, void* stream);

}  // namespace edgeseg
