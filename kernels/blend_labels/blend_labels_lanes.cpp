// The vector code of blend_labels, compiled once per instruction set with its own EDGESEG_LANES and
// EDGESEG_LANES_NAMESPACE: one row of pixels. The specification is blend_labels.h.
#include "blend_labels/blend_labels_lanes.h"

#include "common/lanes.h"

namespace edgeseg {
namespace {

constexpr int kPixels = kBlendPixels, kValues = 3 * kPixels;
constexpr int kBlocks = 8;  // blended together
static_assert(kValues % (2 * kLanes) == 0, "whole vectors of values for every lane count");

typedef std::uint8_t ManyBytes __attribute__((vector_size(2 * kLanes)));
typedef std::uint16_t ManyHalves __attribute__((vector_size(4 * kLanes)));

// With AVX2 GCC 12 makes several instructions of each conversion that is one or two.
EDGESEG_INLINE ManyHalves widen(ManyBytes bytes) {
#if defined(__AVX2__) && EDGESEG_LANES == 8
  return (ManyHalves)_mm256_cvtepu8_epi16((__m128i)bytes);
#else
  return __builtin_convertvector(bytes, ManyHalves);
#endif
}

EDGESEG_INLINE ManyBytes narrow(ManyHalves halves) {  // of values below 256
#if defined(__AVX2__) && EDGESEG_LANES == 8
  const __m256i both = (__m256i)halves;
  return (ManyBytes)_mm_packus_epi16(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1));
#else
  return __builtin_convertvector(halves, ManyBytes);
#endif
}

EDGESEG_INLINE bool all_equal(const std::uint8_t* labels) {
  const std::uint64_t wanted = labels[0] * 0x0101010101010101u;
  std::uint64_t differ = 0;
  for (int i = 0; i < kPixels; i += 8) differ |= load<std::uint64_t>(labels + i) ^ wanted;
  return differ == 0;
}

EDGESEG_INLINE void set_tint(std::uint16_t* tints, int pixel, const Tint& tint) {
  std::memcpy(tints + 3 * pixel, &tint, sizeof(tint));  // the fourth value is overwritten by the next pixel
}

EDGESEG_INLINE void blend(const std::uint8_t* image, const std::uint16_t* tints, int share, std::uint8_t* out) {
  const ManyHalves keep = static_cast<std::uint16_t>(256 - share) - ManyHalves{};
  for (int i = 0; i < kValues; i += 2 * kLanes) {
    const ManyHalves values = widen(load<ManyBytes>(image + i));
    const ManyHalves blended = (values * keep + load<ManyHalves>(tints + i)) >> 8;
    store(out + i, narrow(blended));
  }
}

// The tints of a block of several labels, written to `tints`.
void look_up(const BlendPlan& plan, const std::uint8_t* image, const std::uint8_t* labels, std::uint16_t* tints) {
  for (int i = 0; i < kPixels; ++i) {
    if (labels[i] < plan.classes) {
      set_tint(tints, i, plan.tints[labels[i]]);
    } else {  // the pixel's own colour: its blend is the pixel
      const std::uint8_t* own = image + 3 * i;
      const auto tint = [&](int c) { return static_cast<std::uint16_t>(own[c] * plan.share + 128); };
      set_tint(tints, i, {{tint(0), tint(1), tint(2), 0}});
    }
  }
}

// Up to kBlocks blocks: what was looked up in pieces has reached the cache when it is loaded in vectors.
void blend_blocks(const BlendPlan& plan, const std::uint8_t* image, const std::uint8_t* labels, std::uint8_t* out,
                  int blocks) {
  std::uint16_t tints[kBlocks][kValues + 1];  // one more, for the last pixel's fourth value
  const std::uint16_t* use[kBlocks];          // null: the block stays as it is
  for (int b = 0; b < blocks; ++b) {
    const std::uint8_t* here = labels + b * kPixels;
    if (!all_equal(here)) {
      look_up(plan, image + b * kValues, here, tints[b]);
      use[b] = tints[b];
    } else {
      use[b] = here[0] < plan.classes ? plan.blocks[here[0]] : nullptr;
    }
  }
  for (int b = 0; b < blocks; ++b, image += kValues, out += kValues) {
    if (use[b] != nullptr) {
      blend(image, use[b], plan.share, out);
    } else if (out != image) {
      std::memcpy(out, image, kValues);
    }
  }
}

}  // namespace

namespace EDGESEG_LANES_NAMESPACE {

void blend_labels_row(const BlendPlan& plan, const std::uint8_t* image, const std::uint8_t* labels, std::uint8_t* out,
                      std::int64_t pixels) {
  while (pixels >= kPixels) {
    const int blocks = static_cast<int>(pixels / kPixels < kBlocks ? pixels / kPixels : kBlocks);
    blend_blocks(plan, image, labels, out, blocks);
    image += blocks * kValues;
    labels += blocks * kPixels;
    out += blocks * kValues;
    pixels -= blocks * kPixels;
  }
  if (pixels == 0) return;
  std::uint8_t last_image[kValues] = {}, last_labels[kPixels], last_out[kValues];
  std::memcpy(last_image, image, static_cast<std::size_t>(3 * pixels));
  std::memset(last_labels, labels[pixels - 1], kPixels);
  std::memcpy(last_labels, labels, static_cast<std::size_t>(pixels));
  blend_blocks(plan, last_image, last_labels, last_out, 1);
  std::memcpy(out, last_out, static_cast<std::size_t>(3 * pixels));
}

}  // namespace EDGESEG_LANES_NAMESPACE
}  // namespace edgeseg
