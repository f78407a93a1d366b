// Between the CPU side of preprocess and its vector code, one copy per instruction set: tables, scratch, entry points.
#pragma once

#include <cstddef>
#include <cstdint>

namespace edgeseg {

constexpr int kWeightBits = 22;     // Pillow's 32 - 8 - 2
constexpr int kRowsTogether = 4;    // source rows whose columns are resized together
constexpr int kPixelsTogether = 4;  // and pixels of them; columns' tables are padded to a multiple of it
constexpr int kRowSlack = 64;       // bytes after a row that vectors may read or write
constexpr int kQuadWords = 16;      // of four taps' packed weights

// One axis of the antialiased resize. The taps of output i are source pixels first[i] .. first[i] + taps[i] - 1.
struct FixedAxis {
  bool same;                    // the size does not change: no pass at all
  int quads;                    // groups of four taps that the longest list needs
  const int* first;             // [outputs]
  const int* taps;              // [outputs]
  const std::int32_t* weights;  // [outputs][4 * quads], zeros after the last tap
  // Of columns, for 16-bit multiply-adds: weight = 2^16 high + low, low in [-2^15, 2^15), two taps to a word, a word
  // four times: [outputs][quads](low 0 1, low 2 3, high 0 1, high 2 3)[4].
  const std::uint32_t* packed;
};

// One axis of the plain bilinear resize (common/bilinear.h): pixels low and low + 1; after the last one, of weight 0.
struct FloatAxis {
  const int* low;            // [outputs]
  const float* low_weight;   // [outputs]
  const float* high_weight;  // [outputs]
};

// value = (x - offset) * slope + ((x - offset) * rest + shift): slope + rest is 1 / (255 std), x - offset is exact, and
// the second sum is tiny, so that with fused multiply-adds the value is as good as rounded once.
struct Arithmetic {
  float offset, slope, rest, shift;
};

struct PreprocessPlan {
  int H, W, h, w;
  std::ptrdiff_t pitch;
  std::ptrdiff_t end;  // of the image's memory, in bytes from its first row
  bool bilinear, half;
  int plane[3];  // of the tensor, for each channel of the image
  FixedAxis columns, rows;
  FloatAxis float_columns, float_rows;
  // By the image's channels, all:
  const float* table;  // [3][256]
  Arithmetic arithmetic[3];
  bool arithmetic_is_exact;     // it equals the table
  float scale[3], bias[3];      // bilinear: value * scale + bias
  std::ptrdiff_t source_bytes;  // of a source row and what vectors may read after it
  std::ptrdiff_t row_bytes;     // of a row in the ring, likewise
  int slots;                    // rows in the ring
};

// Of one band at work: 2 (slots + 1) pointers, a line and the ring, copies of source rows.
inline std::ptrdiff_t preprocess_scratch_bytes(const PreprocessPlan& plan) {
  return 2 * (plan.slots + 1) * static_cast<std::ptrdiff_t>(sizeof(void*)) + (plan.slots + 1) * plan.row_bytes +
         kRowsTogether * plan.source_bytes;
}

#define EDGESEG_DECLARE_LANES(name)                                                                          \
  namespace name {                                                                                           \
  /* Does the arithmetic hit every entry of the table with this instruction set? */                          \
  bool preprocess_arithmetic_is_exact(const float* table, const Arithmetic* arithmetic);                     \
  /* Output rows [first, last) of one image; scratch: preprocess_scratch_bytes, aligned to 8. */             \
  void preprocess_band(const PreprocessPlan& plan, const std::uint8_t* image, void* tensor, int first,       \
                       int last, std::uint8_t* scratch);                                                     \
  }
EDGESEG_DECLARE_LANES(portable)
EDGESEG_DECLARE_LANES(lanes16)
EDGESEG_DECLARE_LANES(avx2)
EDGESEG_DECLARE_LANES(avx512)
#undef EDGESEG_DECLARE_LANES

}  // namespace edgeseg
