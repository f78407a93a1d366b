// tensor[c, y, x] = table[c, image[y, x, c]]
//
// image  (H, W, 3) uint8 contiguous      table  (3, 256) float32      tensor  (3, H, W) float32
//
// A byte has 256 values, so (x / 255 - mean[c]) / std[c] is a table that the caller makes once, in whatever arithmetic
// it wants; the result is then that arithmetic exactly, on every machine. The tables (3 KB) stay in L1: one load per
// value, which nothing but a shuffle of the same table could beat. One task is a band of rows.
#pragma once

#include <cstdint>

#include "common/thread_pool.h"

namespace edgeseg {

void normalize_image_cpu(const std::uint8_t* image, const float* table, float* tensor, std::int64_t height,
                         std::int64_t width, const ParallelFor& parallel_for);

}  // namespace edgeseg
