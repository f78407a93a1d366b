// Where in a map the taps of a dilated convolution lie inside it. Along one axis the set of such taps changes at the
// multiples of the dilation counted from either end, so a 3x3 convolution has at most 3 zones an axis and 9 rectangles.
// Within one of them no tap needs a border check and none is wasted on padding.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace edgeseg {

// Positions [begin, end) of one axis, whose taps [first_tap, last_tap) are inside [0, size).
struct AxisZone {
  int begin, end, first_tap, last_tap;
};

// In order; they cover [0, size). Tap t reads position i + (t - kernel / 2) * dilation.
inline std::vector<AxisZone> axis_zones(int size, int kernel, int dilation) {
  const int radius = kernel / 2;
  std::vector<int> cuts = {0, size};
  for (std::int64_t step = 1; step <= radius; ++step) {
    const std::int64_t distance = step * dilation;
    if (distance >= size) break;
    cuts.push_back(static_cast<int>(distance));
    cuts.push_back(static_cast<int>(size - distance));
  }
  std::sort(cuts.begin(), cuts.end());
  cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());
  std::vector<AxisZone> zones;
  for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
    const int before = cuts[i] / dilation, after = (size - 1 - cuts[i]) / dilation;  // taps that fit on either side
    zones.push_back({cuts[i], cuts[i + 1], radius - std::min(radius, before), radius + std::min(radius, after) + 1});
  }
  return zones;
}

struct Zone {
  AxisZone y, x;
  int taps() const { return (y.last_tap - y.first_tap) * (x.last_tap - x.first_tap); }
  std::int64_t pixels() const { return static_cast<std::int64_t>(y.end - y.begin) * (x.end - x.begin); }
};

inline std::vector<Zone> zones_of(int height, int width, int kernel, int dilation) {
  const std::vector<AxisZone> columns = axis_zones(width, kernel, dilation);
  std::vector<Zone> zones;
  for (const AxisZone& row : axis_zones(height, kernel, dilation)) {
    for (const AxisZone& column : columns) zones.push_back({row, column});
  }
  return zones;
}

}  // namespace edgeseg
