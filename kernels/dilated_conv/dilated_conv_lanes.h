// What dilated_conv_cpu.cpp hands to the vector code, which is compiled once per instruction set. Plain data only (see
// upsample_argmax_lanes.h).
#pragma once

#include <cstddef>
#include <cstdint>

namespace edgeseg {

constexpr int kConvRows = 144;     // pixels of a task: a multiple of 6 and 12
constexpr int kConvOutputs = 128;  // outputs of a task: a multiple of two vectors
constexpr int kConvDepth = 256;    // channels at a time (int8: pairs or fours of channels)
// Apart from a power of two, which would send every row to the same sets of the cache.
constexpr int kConvRowPitch = kConvDepth + 16;

struct ConvTask {
  bool int8;
  bool vnni;             // with 16 lanes: int8 in fours, by AVX-512 VNNI or (lanes16) what it does
  const void* x;         // of the image
  float* y;              // of the image and the branch
  const void* weight;    // (k, k, C, O)
  const float* bias;     // or null
  const float* scale;    // with int8
  const int* pixels;     // [rows] indices in the image
  int rows;              // in [1, kConvRows]
  int outputs;           // in [1, kConvOutputs]; y, weight, bias and scale begin at the first one
  std::ptrdiff_t width;  // of the image
  std::ptrdiff_t x_pitch, y_pitch;
  int C, O;
  int kernel;
  std::ptrdiff_t dilation;
  int first_row_tap, last_row_tap, first_column_tap, last_column_tap;
  float low, high;
};

// Memory of one task at work, 64-byte aligned, in words of 4 bytes.
struct ConvScratch {
  std::uint32_t* x;       // [kConvRows + 12][kConvRowPitch]
  std::uint32_t* weight;  // [kConvOutputs / two vectors], each [kConvDepth][two vectors] and 16 more
};

#define EDGESEG_DECLARE_LANES(name)                                 \
  namespace name {                                                  \
  void conv_task(const ConvTask& task, const ConvScratch& scratch); \
  }
EDGESEG_DECLARE_LANES(portable)
EDGESEG_DECLARE_LANES(lanes16)
EDGESEG_DECLARE_LANES(avx2)
EDGESEG_DECLARE_LANES(avx512)
#undef EDGESEG_DECLARE_LANES

}  // namespace edgeseg
