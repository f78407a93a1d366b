// blend_labels on CUDA. The specification is blend_labels.h.
#include "blend_labels/blend_labels.h"
#include "common/cuda.h"

namespace edgeseg {
namespace {

constexpr int kPixels = 4;  // of one thread: 12 bytes of the image are 3 words
constexpr int kThreadsX = 64, kThreadsY = 4;
constexpr int kBlockColumns = kThreadsX * kPixels, kBlockRows = 16;

// What a label's colour brings, palette * share + 128, and how much of the pixel stays.
struct alignas(8) Tint {
  unsigned short value[3], keep;
};

__device__ __forceinline__ void blend_pixel(const Tint& tint, const unsigned char* pixel, unsigned char* blended) {
  for (int c = 0; c < 3; ++c) {
    blended[c] = static_cast<unsigned char>((pixel[c] * tint.keep + tint.value[c]) >> 8);
  }
}

// kWords: every row begins at a multiple of 4 bytes in image, labels and out.
template <bool kWords>
__global__ void __launch_bounds__(kThreadsX* kThreadsY)
    blend_block(BlendLabels blend, int height, int width, int classes, int row_tiles, int column_tiles) {
  __shared__ Tint tints[256];
  for (int k = threadIdx.y * kThreadsX + threadIdx.x; k < 256; k += kThreadsX * kThreadsY) {
    Tint tint = {{128, 128, 128}, 256};  // (p * 256 + 128) >> 8 is p: the pixel stays
    if (k < classes) {
      for (int c = 0; c < 3; ++c) {
        tint.value[c] = static_cast<unsigned short>(blend.palette[3 * k + c] * blend.share + 128);
      }
      tint.keep = static_cast<unsigned short>(256 - blend.share);
    }
    tints[k] = tint;
  }
  __syncthreads();

  const int column_tile = blockIdx.x % column_tiles, row_tile = blockIdx.x / column_tiles % row_tiles;
  const int64_t n = blockIdx.x / column_tiles / row_tiles;
  const int x = column_tile * kBlockColumns + threadIdx.x * kPixels;
  if (x >= width) return;
  const int last = min((row_tile + 1) * kBlockRows, height);
  for (int y = row_tile * kBlockRows + threadIdx.y; y < last; y += kThreadsY) {
    const auto at = [&](const Pitch& pitch) { return n * pitch.image + y * pitch.row; };
    const std::uint8_t* const image = blend.image + at(blend.image_pitch) + 3 * x;
    const std::uint8_t* const labels = blend.labels + at(blend.labels_pitch) + x;
    std::uint8_t* const out = blend.out + at(blend.out_pitch) + 3 * x;
    if (kWords && x + kPixels <= width) {
      alignas(4) unsigned char pixels[3 * kPixels], here[kPixels];
      for (int i = 0; i < 3; ++i) {
        reinterpret_cast<unsigned*>(pixels)[i] = reinterpret_cast<const unsigned*>(image)[i];
      }
      *reinterpret_cast<unsigned*>(here) = *reinterpret_cast<const unsigned*>(labels);
      for (int p = 0; p < kPixels; ++p) blend_pixel(tints[here[p]], pixels + 3 * p, pixels + 3 * p);
      for (int i = 0; i < 3; ++i) reinterpret_cast<unsigned*>(out)[i] = reinterpret_cast<unsigned*>(pixels)[i];
    } else {
      for (int p = 0; p < min(kPixels, width - x); ++p) blend_pixel(tints[labels[p]], image + 3 * p, out + 3 * p);
    }
  }
}

bool in_words(const void* address, const Pitch& pitch) {
  return (reinterpret_cast<std::uintptr_t>(address) | pitch.row | pitch.image) % 4 == 0;
}

}  // namespace

int blend_labels_cuda(const BlendLabels& blend, const BlendLabelsShape& shape, void* stream) {
  if (shape.N * shape.H * shape.W == 0) return cudaSuccess;
  const int height = static_cast<int>(shape.H), width = static_cast<int>(shape.W);
  const int row_tiles = ceil_div(height, kBlockRows), column_tiles = ceil_div(width, kBlockColumns);
  const int64_t blocks = shape.N * row_tiles * column_tiles;
  if (blocks > 0x7fffffff) return cudaErrorInvalidValue;  // more than a grid has
  const bool words = in_words(blend.image, blend.image_pitch) && in_words(blend.labels, blend.labels_pitch) &&
                     in_words(blend.out, blend.out_pitch);
  return launch({dim3(static_cast<unsigned>(blocks)), dim3(kThreadsX, kThreadsY)}, stream,
                words ? blend_block<true> : blend_block<false>, blend, height, width, static_cast<int>(shape.K),
                row_tiles, column_tiles);
}

}  // namespace edgeseg
