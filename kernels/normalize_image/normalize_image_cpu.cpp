#include <algorithm>

#include "normalize_image/normalize_image.h"

namespace edgeseg {

void normalize_image_cpu(const std::uint8_t* image, const float* table, float* tensor, std::int64_t height,
                         std::int64_t width, const ParallelFor& parallel_for) {
  constexpr std::int64_t kBandRows = 32;
  const std::int64_t plane = height * width;
  parallel_for((height + kBandRows - 1) / kBandRows, [=](std::int64_t band) {
    const std::int64_t begin = band * kBandRows * width;
    const std::int64_t end = std::min(begin + kBandRows * width, plane);
    float* const red = tensor;
    float* const green = tensor + plane;
    float* const blue = tensor + 2 * plane;
    for (std::int64_t i = begin; i < end; ++i) {
      red[i] = table[image[3 * i]];
      green[i] = table[256 + image[3 * i + 1]];
      blue[i] = table[512 + image[3 * i + 2]];
    }
  });
}

}  // namespace edgeseg
