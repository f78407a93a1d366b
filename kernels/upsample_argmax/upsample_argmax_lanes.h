// What upsample_argmax_cpu.cpp hands to the vector code, which is compiled once per instruction set. Plain data only:
// an inline function shared with code compiled for AVX-512 could be the copy that the linker keeps for everybody.
#pragma once

#include <cstddef>
#include <cstdint>

namespace edgeseg {

// One direction of the resize. Cell j lies between source pixels j and j + 1 (the last: j and j again) and owns outputs
// [start[j], start[j + 1]). Outputs [0, border) lie before the first pixel's centre: clamped there, all of them have
// the taps (0, 1) and weights (1, 0), so one is computed and copied.
struct AxisView {
  int cells;
  int outputs;
  int border;
  bool same_size;    // then the right (bottom) corners are the left (top) ones: 0 * infinity is the pixel's own
  const int* start;  // cells + 1 entries; start[0] = border, start[cells] = outputs
};

struct UpsampleArgmaxPlan {
  int classes;
  int width;             // source columns, padded to at least the lane count
  std::ptrdiff_t plane;  // elements from one class to the next
  AxisView rows, columns;
  const float* row_low;  // [rows.outputs] weights of each output row
  const float* row_high;
  int phases;               // the most outputs any column cell owns
  int uniform;              // outputs of every column cell but the last if that is one number, else 0
  const float* column_low;  // [phases][width] weights of output start[j] + phase; (1, 0) where the cell has fewer
  const float* column_high;
};

// Memory of one band at work, nothing in it is kept.
struct UpsampleArgmaxScratch {
  std::uint8_t* labels[2];  // of two source rows: [width]
  float* maxima[2];         // of two source rows: at most [width / lanes + 1][classes][lanes]
  int* list;                // [classes + 1] classes that can win in a tile
  float* corners;           // [classes + 1][4][lanes] their corners
  std::uint32_t* packed;    // [4 rows][groups of 4 phases][lanes]
  std::uint8_t* segment;    // [longest tile of an output row + 8]
};

// Of one image, (H, W) each. `labels` (at most 255 classes) or `wide` is null; `margin` may be.
struct UpsampleArgmaxOutputs {
  std::uint8_t* labels;
  std::int32_t* wide;
  float* margin;
};

// Labels of the output rows of cell rows [first, last) of one image; `logits` points at source row `first`.
using UpsampleArgmaxBand = void (*)(const UpsampleArgmaxPlan& plan, const float* logits,
                                    const UpsampleArgmaxOutputs& outputs, int first, int last,
                                    const UpsampleArgmaxScratch& scratch);

// `count` numbers of 16 bits, float16 or bfloat16, as float32.
using Widen = void (*)(const std::uint16_t* from, float* to, int count, bool is_f16);

#define EDGESEG_DECLARE_LANES(name)                                                                      \
  namespace name {                                                                                       \
  void upsample_argmax_band(const UpsampleArgmaxPlan& plan, const float* logits,                         \
                            const UpsampleArgmaxOutputs& outputs, int first, int last,                   \
                            const UpsampleArgmaxScratch& scratch);                                       \
  void widen(const std::uint16_t* from, float* to, int count, bool is_f16);                              \
  }
EDGESEG_DECLARE_LANES(portable)
EDGESEG_DECLARE_LANES(lanes16)
EDGESEG_DECLARE_LANES(avx2)
EDGESEG_DECLARE_LANES(avx512)
#undef EDGESEG_DECLARE_LANES

}  // namespace edgeseg
