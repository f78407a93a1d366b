// What ASPP adds to dilated_conv on CPU: the pooled branch. The rest is dilated_conv/dilated_conv_cpu.cpp.
#include <algorithm>
#include <vector>

#include "aspp/aspp.h"

namespace edgeseg {
namespace {

template <typename T>
void run_pool(const ConvJob& job, std::int64_t image) {
  // Per row of the map first: sums of like size, so that float32 loses little.
  std::vector<float> mean(job.C, 0.0f), row_sum(job.C), value(job.O, 0.0f);
  const std::int64_t pixels = job.H * job.W;
  const T* x = static_cast<const T*>(job.x) + image * pixels * job.x_pitch;
  for (std::int64_t y = 0; y < job.H; ++y) {
    std::fill(row_sum.begin(), row_sum.end(), 0.0f);
    for (std::int64_t i = 0; i < job.W; ++i, x += job.x_pitch) {
      for (std::int64_t c = 0; c < job.C; ++c) row_sum[c] += static_cast<float>(x[c]);
    }
    for (std::int64_t c = 0; c < job.C; ++c) mean[c] += row_sum[c] / static_cast<float>(pixels);
  }
  const T* weight = static_cast<const T*>(job.pool.weight);
  for (std::int64_t c = 0; c < job.C; ++c, weight += job.O) {
    for (std::int64_t o = 0; o < job.O; ++o) value[o] += mean[c] * static_cast<float>(weight[o]);
  }
  for (std::int64_t o = 0; o < job.O; ++o) {
    float v = value[o] * (job.pool.scale == nullptr ? 1.0f : job.pool.scale[o]);
    v += job.pool.bias == nullptr ? 0.0f : job.pool.bias[o];
    value[o] = v < job.low ? job.low : v > job.high ? job.high : v;  // NaN stays
  }
  float* y = static_cast<float*>(job.y) + image * pixels * job.y_pitch + job.branches * job.O;
  for (std::int64_t i = 0; i < pixels; ++i, y += job.y_pitch) std::copy(value.begin(), value.end(), y);
}

}  // namespace

void conv_pool_cpu(const ConvJob& job, std::int64_t image) {
  if (job.int8) {
    run_pool<std::int8_t>(job, image);
  } else {
    run_pool<float>(job, image);
  }
}

}  // namespace edgeseg
