// What blend_labels_cpu.cpp hands to the vector code, which is compiled once per instruction set. Plain data only, as
// in upsample_argmax_lanes.h.
#pragma once

#include <cstdint>

namespace edgeseg {

// What a label's colour brings: palette * share + 128. Four values, so that one is written in one piece.
struct Tint {
  std::uint16_t value[4];
};

constexpr int kBlendPixels = 32;  // of one block

struct BlendPlan {
  Tint tints[256];                              // of the first `classes` labels
  std::uint16_t blocks[256][3 * kBlendPixels];  // the tints of a block of one label
  int classes;
  int share;
};

#define EDGESEG_DECLARE_LANES(name)                                                                   \
  namespace name {                                                                                    \
  void blend_labels_row(const BlendPlan& plan, const std::uint8_t* image, const std::uint8_t* labels, \
                        std::uint8_t* out, std::int64_t pixels);                                      \
  }
EDGESEG_DECLARE_LANES(portable)
EDGESEG_DECLARE_LANES(lanes16)
EDGESEG_DECLARE_LANES(avx2)
EDGESEG_DECLARE_LANES(avx512)
#undef EDGESEG_DECLARE_LANES

using BlendLabelsRow = void (*)(const BlendPlan& plan, const std::uint8_t* image, const std::uint8_t* labels,
                                std::uint8_t* out, std::int64_t pixels);

}  // namespace edgeseg
