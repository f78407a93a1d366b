// y[n, i, j, o] = act(scale[o] * sum_{u, v, c} x[n, i + (u - r) d, j + (v - r) d, c] * weight[u, v, c, o] + bias[o])
//
// x  (N, H, W, C)     y  (N, H, W, O)     weight  (k, k, C, O), on CUDA (k, k, O, C)     k odd, at most 7, r = k / 2
//
// torch's conv2d of stride 1, dilation d and padding d * r, with batch norm folded into weight and bias, on channels
// that lie together (NHWC); x outside the map counts as 0. act clamps to [low, high] and keeps NaN.
//   Types     x and weight float32: sums in float32, in an order of their own. float16 (CUDA): float32 sums, rounded
//             once. int8: exact int32 sums; y is float32 (CUDA: or float16), and scale[o] = scale of x * scale of
//             weight[.., o]. Without int8 scale is null and counts as 1.
//   Branches  several convolutions of one x, one after the other in y's channels: all of them in one pass over a list
//             of tasks, longest first. `pool` is a last branch: act(mean of x over the map, times a 1x1 weight, plus
//             bias), the same for every pixel. Together: ASPP (aspp/aspp.h).
//   Zones     (zones.h) a tap that falls into the padding all over a zone is never computed: at rates 6, 12 and 18 on a
//             33x33 map that is 42 % of the work, beyond the map's size all but the centre tap.
//
// CPU   One task is up to 144 pixels of a zone times up to 128 outputs: per tap and 256 channels, x and the weight are
//       copied side by side (in vectors' order) and multiplied in registers, 6 pixels (12 with 16 lanes) times two
//       vectors of outputs. int8 is widened to int16 there, for pmaddwd (at best twice float32's rate); with AVX-512
//       VNNI it stays bytes (four times). Both are exact.
// CUDA  One block makes 128 pixels of a zone (of all images together) times 128 outputs; dilated_conv.cu says how.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/element.h"
#include "common/instruction_set.h"
#include "common/thread_pool.h"

namespace edgeseg {

constexpr int kMaxConvBranches = 7;
constexpr int kMaxConvKernel = 7;
constexpr int kMaxConvZones = 63;  // of all branches: what a CUDA kernel's parameters hold

struct ConvBranch {
  const void* weight = nullptr;
  const float* bias = nullptr;   // (O); null counts as 0
  const float* scale = nullptr;  // (O), with int8 only
  int kernel = 1;
  int dilation = 1;
};

struct ConvJob {
  std::int64_t N, H, W, C, O;     // O of each branch
  std::int64_t x_pitch, y_pitch;  // elements from one pixel to the next; rows and images follow without gaps
  const void* x;
  void* y;
  bool int8;        // x and weights; else they are of type `element`
  Element element;  // of y
  float low, high;
  int branches;  // convolutions, at least 1; branch b makes y's channels [b * O, (b + 1) * O)
  ConvBranch branch[kMaxConvBranches];
  bool has_pool;
  ConvBranch pool;

  int parts() const { return branches + (has_pool ? 1 : 0); }
};

// Null when it can be computed; otherwise what is wrong with it. Pointers are not looked at.
const char* conv_fault(const ConvJob& job);

// Multiply-accumulates with a tap inside the map, those that are computed.
double conv_macs(const ConvJob& job);

// element must be kF32. False, with y half written, when memory runs out.
bool conv_cpu(const ConvJob& job, InstructionSet instruction_set, int num_threads, const ParallelFor& parallel_for);

// The pooled branch of one image: a read of x, which is little beside the convolutions, hence one task of conv_cpu's.
// May throw std::bad_alloc.
void conv_pool_cpu(const ConvJob& job, std::int64_t image);

// Bytes of device memory that conv_cuda needs on the current device; 0 is frequent.
std::int64_t conv_cuda_workspace(const ConvJob& job);

// element kF32 or kF16. A cudaError_t. workspace: device memory, aligned to 256 bytes, of no particular content.
int conv_cuda(const ConvJob& job, void* workspace, void* stream);

}  // namespace edgeseg
