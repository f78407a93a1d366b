// The tables of preprocess, made in float64 on the host: taps and weights of an axis, the 256 values of each channel.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "common/bilinear.h"
#include "preprocess/preprocess.h"
#include "preprocess/preprocess_lanes.h"

namespace edgeseg {

// Taps and 22-bit weights of every output along one axis, as Pillow's precompute_coeffs and normalize_coeffs_8bpc make
// them for its bilinear filter. Weights that round to zero at either end of a list are left out.
struct FixedTaps {
  int quads = 1;
  std::vector<int> first, taps;
  std::vector<std::int32_t> weights;  // [outputs][4 * quads]

  FixedTaps(int in_size, int out_size) : first(out_size), taps(out_size) {
    const double scale = static_cast<double>(in_size) / out_size, support = std::max(scale, 1.0);
    std::vector<double> exact(static_cast<std::size_t>(std::ceil(support)) * 2 + 1);
    std::vector<std::int32_t> packed;  // every output's taps, one list after the other
    packed.reserve(static_cast<std::size_t>(out_size) * 4);
    const double per_support = 1.0 / support;
    for (int out = 0; out < out_size; ++out) {
      const double centre = (out + 0.5) * scale;
      const int begin = std::max(0, static_cast<int>(centre - support + 0.5));
      const int end = std::min(in_size, static_cast<int>(centre + support + 0.5));
      double sum = 0.0;
      for (int i = begin; i < end; ++i) {
        exact[i - begin] = std::max(0.0, 1.0 - std::abs((i - centre + 0.5) * per_support));
        sum += exact[i - begin];
      }
      first[out] = begin;
      for (int i = begin; i < end; ++i) {
        const double weight = sum != 0.0 ? exact[i - begin] / sum : exact[i - begin];
        const auto rounded = static_cast<std::int32_t>(0.5 + weight * (1 << kWeightBits));
        if (rounded == 0 && taps[out] == 0 && i + 1 < end) {
          first[out] = i + 1;
        } else {
          packed.push_back(rounded);
          ++taps[out];
        }
      }
      for (; taps[out] > 1 && packed.back() == 0; --taps[out]) packed.pop_back();
      quads = std::max(quads, (taps[out] + 3) / 4);
    }
    weights.resize(static_cast<std::size_t>(out_size) * 4 * quads);
    const std::int32_t* from = packed.data();
    for (int out = 0; out < out_size; from += taps[out++]) {
      std::copy_n(from, taps[out], weights.data() + static_cast<std::size_t>(out) * 4 * quads);
    }
  }

  std::int32_t weight(int out, int tap) const { return weights[static_cast<std::size_t>(out) * 4 * quads + tap]; }
  int most() const { return *std::max_element(taps.begin(), taps.end()); }
};

// FixedTaps as the CPU's vector code wants them.
struct FixedTable : FixedTaps {
  std::vector<std::uint32_t> packed;
  bool same;

  FixedTable(int in_size, int out_size, bool columns) : FixedTaps(in_size, out_size), same(in_size == out_size) {
    if (!columns) return;
    const int padded = (out_size + kPixelsTogether - 1) / kPixelsTogether * kPixelsTogether;
    first.resize(padded, first.back());
    packed.resize(static_cast<std::size_t>(padded) * quads * kQuadWords);
    std::uint32_t* to = packed.data();
    for (int out = 0; out < out_size; ++out) {
      for (int quad = 0; quad < quads; ++quad, to += kQuadWords) {
        for (int tap = 0; tap < 4; ++tap) {
          const std::int32_t whole = weight(out, 4 * quad + tap), low = static_cast<std::int16_t>(whole);
          const int shift = tap % 2 * 16;
          for (int i = 0; i < 4; ++i) {
            to[tap / 2 * 4 + i] |= (static_cast<std::uint32_t>(low) & 0xffffu) << shift;
            to[8 + tap / 2 * 4 + i] |= static_cast<std::uint32_t>((whole - low) >> 16) << shift;
          }
        }
      }
    }
  }

  FixedAxis view() const { return {same, quads, first.data(), taps.data(), weights.data(), packed.data()}; }
};

struct FloatTable {
  std::vector<int> low;
  std::vector<float> low_weight, high_weight;

  FloatTable(int in_size, int out_size) : low(out_size), low_weight(out_size), high_weight(out_size) {
    constexpr int kMostPixels = 16;  // that vector code takes together, from the last output on too
    const BilinearAxis axis(in_size, out_size, false);
    for (int out = 0; out < out_size; ++out) {
      const BilinearTap tap = axis.tap(out);
      low[out] = tap.low;
      low_weight[out] = tap.high > tap.low ? tap.weight_low : 1.0f;
      high_weight[out] = tap.high > tap.low ? tap.weight_high : 0.0f;
    }
    low.resize(out_size + kMostPixels, low.back());
    low_weight.resize(out_size + kMostPixels);
    high_weight.resize(out_size + kMostPixels);
  }

  FloatAxis view() const { return {low.data(), low_weight.data(), high_weight.data()}; }
};

// By the image's channels; the mean and std are those of R, G, B.
struct Normalization {
  float table[3 * 256];
  Arithmetic arithmetic[3];
  float scale[3], bias[3];

  explicit Normalization(const PreprocessOptions& options) {
    for (int c = 0; c < 3; ++c) {
      const double mean = options.mean[options.bgr ? 2 - c : c], std = options.std[options.bgr ? 2 - c : c];
      for (int x = 0; x < 256; ++x) table[256 * c + x] = static_cast<float>((x / 255.0 - mean) / std);
      const double slope = 1.0 / (255.0 * std);
      const auto slope32 = static_cast<float>(slope);
      const double offset = std::nearbyint(255.0 * mean * 32768.0) / 32768.0;  // below 256: 23 bits
      arithmetic[c] = {static_cast<float>(offset), slope32, static_cast<float>(slope - slope32),
                       static_cast<float>((offset - 255.0 * mean) * slope)};
      scale[c] = slope32;
      bias[c] = static_cast<float>(-mean / std);
    }
  }
};

}  // namespace edgeseg
