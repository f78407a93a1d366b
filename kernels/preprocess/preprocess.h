// tensor[n, c, y, x] = (resized[n, y, x, c] / 255 - mean[c]) / std[c]: resize, normalisation and layout in one pass
//
// image  (N, H, W, 3) uint8, rows and images any distance apart      tensor  (N, 3, h, w) float32 or float16
// mean, std  of R, G, B in 0..1, float64       The tensor's channels are R, G, B; a BGR image is turned round.
//
// antialias  Pillow's Image.resize((w, h), BILINEAR), to the last bit:
//   per axis   scale = in / out, support = max(scale, 1), centre = (i + 0.5) * scale; the taps are the source pixels
//              whose centres are nearer than support, weights the triangle 1 - |distance| / support, normalised, all in
//              float64, then rounded to 22 fraction bits, halves away from zero.
//   two passes columns, then rows, each (sum of weight * pixel + 2^21) >> 22, clamped to 255: a uint8 after each. An
//              axis whose size does not change has one tap of weight 2^22, which is the identity.
//              Columns first, always, as in Pillow up to 12 and in torchvision (whose 16-bit weights keep it within a
//              level only). Pillow 13 begins with the rows where H - h > max(0, 2 (W - w)); one axis at a time,
//              resize((w, H)).resize((w, h)), any Pillow gives this result.
//   then       the 256 values that a channel can have, (x / 255 - mean) / std in float64, rounded once to float32.
//   The tensor is thus the same to the bit on every machine and device and with any number of threads.
// bilinear   torch's interpolate(image as float32, (h, w), mode="bilinear", align_corners=False, antialias=False)
//   per axis   two taps, common/bilinear.h; float32, rows then columns, nothing rounded to integers in between; then
//              value * float32(1 / (255 std)) + float32(-mean / std). Sums are fused where the machine has FMA: results
//              differ in the last places (a few 2^-24 of 255) between instruction sets, not between thread counts.
//   OpenCV's INTER_LINEAR on uint8 has the same taps, with weights rounded to 11 bits and sums cut to 4 fraction bits
//   on the way: within 0.8 of a level of this, and, this one rounded, a level off in one value of eight (OpenCV 5.0).
//   Where neither side changes there is nothing to interpolate: the same as antialias.
// float16    the float32 rounded to nearest, ties to even.
//
// How (CPU)   One task is a band of output rows. It resizes the columns of each source row it needs once, four rows
//             together so that weights are fetched once, into a ring of as many rows as the vertical pass looks back
//             on; an output row is then summed from the ring, normalised and spread to the planes while it is in L1.
//             bilinear has no use for a ring: the rows of one output row are interpolated first.
//             Weights of 23 bits are split, 2^16 high + low, for the 16-bit multiply-adds of x86 (lanes_antialias.h).
//             The table is not looked up where float32 arithmetic hits all its 768 entries (lanes_normalize.h).
// How (CUDA)  One block makes 64 x 16 output pixels of an image: the source rows they need, resized to the tile's
//             columns, lie in shared memory as bytes, four rows to a word, at most 64 rows at a time; weights are three
//             bytes, one dp4a each for four taps.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "common/element.h"
#include "common/instruction_set.h"
#include "common/thread_pool.h"

namespace edgeseg {

struct PreprocessShape {
  std::int64_t N, H, W, h, w;
};

enum class Resampling : int { kAntialias = 0, kBilinear = 1 };

// Pixels of one image are three bytes each without gaps; the rest may lie anywhere, a negative pitch included.
struct PreprocessImages {
  const std::uint8_t* first;
  std::int64_t image_stride, row_pitch;  // bytes from one image or row to the next
};

struct PreprocessOptions {
  const double* mean;  // [3]
  const double* std;   // [3]
  Resampling mode;
  bool bgr;
  Element element;  // kF32 or kF16
};

// Null when the ops below take it; otherwise what is wrong with it.
const char* preprocess_fault(const PreprocessShape& shape, const PreprocessOptions& options);

// Where no side changes there is nothing to interpolate, whatever the mode.
inline bool interpolates(const PreprocessShape& s, const PreprocessOptions& options) {
  return options.mode == Resampling::kBilinear && (s.H != s.h || s.W != s.w);
}

// False when memory runs out; everything else was checked by the caller.
bool preprocess_cpu(const PreprocessImages& images, void* tensor, const PreprocessShape& shape,
                    const PreprocessOptions& options, InstructionSet instruction_set, int num_threads,
                    const ParallelFor& parallel_for);

// What the CUDA kernel reads besides the images, as 32-bit words. Made on the host, once for sizes, mode, order, mean
// and std, and copied to the device by the caller. Throws std::bad_alloc.
//   [0] column quads Q   [1] row quads R   [2..4] scale   [5..7] bias   [8..775] table, by the image's channels; then,
//   unless it interpolates, for columns and rows four taps to a word, a byte of the weights each, lowest byte first:
//   columns' first tap [w]   weights [Q][3][w]   rows' first tap / 4 [h]   weights [h][R][3] from that multiple of 4
constexpr int kPlanColumnQuads = 0, kPlanRowQuads = 1, kPlanScale = 2, kPlanBias = 5, kPlanTable = 8;
constexpr int kPlanWeights = kPlanTable + 3 * 256;
std::vector<std::uint32_t> preprocess_plan(const PreprocessShape& shape, const PreprocessOptions& options);

// A cudaError_t. Starts the kernel on `stream`, a cudaStream_t; `plan` is on the device, mean and std are not read.
int preprocess_cuda(const PreprocessImages& images, const std::uint32_t* plan, void* tensor,
                    const PreprocessShape& shape, const PreprocessOptions& options, void* stream);

}  // namespace edgeseg
