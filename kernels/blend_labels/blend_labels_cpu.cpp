// The host side of blend_labels on CPU: the colours' shares, bands of rows, the choice of instruction set.
#include <algorithm>

#include "blend_labels/blend_labels.h"
#include "blend_labels/blend_labels_lanes.h"
#include "common/bilinear.h"

namespace edgeseg {
namespace {

BlendLabelsRow row_of(InstructionSet set) {
  switch (set == InstructionSet::kAutomatic ? best_instruction_set() : set) {
#if EDGESEG_X86
    case InstructionSet::kAvx2:
      return avx2::blend_labels_row;
    case InstructionSet::kAvx512:
      return avx512::blend_labels_row;
#endif
    case InstructionSet::kLanes16:
      return lanes16::blend_labels_row;
    default:
      return portable::blend_labels_row;
  }
}

bool holds(std::int64_t pitch, std::int64_t bytes, std::int64_t count) {
  return count <= 1 || pitch >= bytes || pitch <= -bytes;
}

}  // namespace

const char* blend_labels_fault(const BlendLabels& blend, const BlendLabelsShape& s) {
  if (s.N < 0) return "a negative batch";
  if (s.H < 0 || s.H > kMaxSide || s.W < 0 || s.W > kMaxSide) return "a height or width not in [0, 2^22]";
  if (s.K < 0 || s.K > 255) return "more than 255 colours";
  if (blend.share < 0 || blend.share > 256) return "a share not in [0, 256]";
  if (s.N * s.H * s.W == 0) return nullptr;  // pitches of nothing mean nothing
  const Pitch& out = blend.out_pitch;
  if (!holds(out.row, 3 * s.W, s.H) || !holds(out.image, 3 * s.W, s.N)) return "an output whose rows overlap";
  return nullptr;
}

void blend_labels_cpu(const BlendLabels& blend, const BlendLabelsShape& shape, InstructionSet instruction_set,
                      const ParallelFor& parallel_for) {
  if (shape.N * shape.H * shape.W == 0) return;
  BlendPlan plan;
  plan.classes = static_cast<int>(shape.K);
  plan.share = blend.share;
  for (int k = 0; k < plan.classes; ++k) {
    plan.tints[k].value[3] = 0;
    for (int c = 0; c < 3; ++c) {
      plan.tints[k].value[c] = static_cast<std::uint16_t>(blend.palette[3 * k + c] * blend.share + 128);
      for (int i = c; i < 3 * kBlendPixels; i += 3) plan.blocks[k][i] = plan.tints[k].value[c];
    }
  }
  const BlendLabelsRow row = row_of(instruction_set);
  constexpr std::int64_t kBandRows = 16;
  const std::int64_t bands = (shape.H + kBandRows - 1) / kBandRows;
  parallel_for(shape.N * bands, [&](std::int64_t task) {
    const std::int64_t n = task / bands, first = task % bands * kBandRows;
    const auto at = [&](const Pitch& pitch, std::int64_t y) { return n * pitch.image + y * pitch.row; };
    for (std::int64_t y = first; y < std::min(first + kBandRows, shape.H); ++y) {
      row(plan, blend.image + at(blend.image_pitch, y), blend.labels + at(blend.labels_pitch, y),
          blend.out + at(blend.out_pitch, y), shape.W);
    }
  });
}

}  // namespace edgeseg
