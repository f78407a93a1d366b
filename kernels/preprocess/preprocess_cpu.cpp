// The host side of preprocess on CPU: tables, bands, the choice of instruction set; and the plan for CUDA.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <memory>
#include <new>

#include "preprocess/preprocess.h"
#include "preprocess/preprocess_tables.h"

namespace edgeseg {
namespace {

struct Lanes {
  decltype(&portable::preprocess_band) band;
  decltype(&portable::preprocess_arithmetic_is_exact) arithmetic_is_exact;
};

Lanes lanes_of(InstructionSet set) {
  switch (set == InstructionSet::kAutomatic ? best_instruction_set() : set) {
#if EDGESEG_X86
    case InstructionSet::kAvx2:
      return {avx2::preprocess_band, avx2::preprocess_arithmetic_is_exact};
    case InstructionSet::kAvx512:
      return {avx512::preprocess_band, avx512::preprocess_arithmetic_is_exact};
#endif
    case InstructionSet::kLanes16:
      return {lanes16::preprocess_band, lanes16::preprocess_arithmetic_is_exact};
    default:
      return {portable::preprocess_band, portable::preprocess_arithmetic_is_exact};
  }
}

std::ptrdiff_t round_up(std::ptrdiff_t value, std::ptrdiff_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// Output rows in one band: one band an image for one thread; otherwise enough for the threads to share evenly, few
// enough that the source rows at a border, resized twice, count for little.
int band_rows(std::int64_t h, std::int64_t images, int num_threads) {
  constexpr std::int64_t kFewest = 16;
  if (num_threads <= 1) return static_cast<int>(h);
  return static_cast<int>(std::min(h, std::max(kFewest, h * images / (4 * std::int64_t{num_threads}))));
}

// The packed weights of four taps at a byte of the weights each, for dp4a.
std::uint32_t packed_bytes(const std::int32_t* weights, int byte) {
  std::uint32_t word = 0;
  for (int tap = 0; tap < 4; ++tap) {
    word |= (static_cast<std::uint32_t>(weights[tap]) >> (8 * byte) & 0xffu) << (8 * tap);
  }
  return word;
}

}  // namespace

const char* preprocess_fault(const PreprocessShape& s, const PreprocessOptions& options) {
  if (s.N < 0) return "a negative batch";
  for (const std::int64_t side : {s.H, s.W, s.h, s.w}) {
    if (side < 1 || side > kMaxSide) return "a height or width not in [1, 2^22]";
  }
  for (int c = 0; c < 3; ++c) {
    if (!std::isfinite(options.mean[c]) || !std::isfinite(options.std[c]) || options.std[c] == 0.0) {
      return "a mean or std that is not finite, or a std of 0";
    }
  }
  if (options.mode != Resampling::kAntialias && options.mode != Resampling::kBilinear) return "an unknown mode";
  if (options.element != Element::kF32 && options.element != Element::kF16) return "an element but float32 and float16";
  return nullptr;
}

bool preprocess_cpu(const PreprocessImages& images, void* tensor, const PreprocessShape& shape,
                    const PreprocessOptions& options, InstructionSet instruction_set, int num_threads,
                    const ParallelFor& parallel_for) {
  if (shape.N == 0) return true;
  try {
    const Lanes lanes = lanes_of(instruction_set);
    const int H = static_cast<int>(shape.H), W = static_cast<int>(shape.W);
    const int h = static_cast<int>(shape.h), w = static_cast<int>(shape.w);
    const bool bilinear = interpolates(shape, options);
    // The tables that the mode does not want are those of one pixel.
    const FixedTable columns(bilinear ? 1 : W, bilinear ? 1 : w, true), rows(bilinear ? 1 : H, bilinear ? 1 : h, false);
    const FloatTable float_columns(bilinear ? W : 1, bilinear ? w : 1), float_rows(bilinear ? H : 1, bilinear ? h : 1);
    const Normalization normalization(options);

    PreprocessPlan plan = {};
    plan.H = H, plan.W = W, plan.h = h, plan.w = w;
    plan.pitch = images.row_pitch;
    plan.end = (plan.pitch > 0 ? (H - 1) * plan.pitch : 0) + 3 * static_cast<std::ptrdiff_t>(W);
    plan.bilinear = bilinear;
    plan.half = options.element == Element::kF16;
    for (int c = 0; c < 3; ++c) plan.plane[c] = options.bgr ? 2 - c : c;
    plan.columns = columns.view();
    plan.rows = rows.view();
    plan.float_columns = float_columns.view();
    plan.float_rows = float_rows.view();
    plan.table = normalization.table;
    std::copy_n(normalization.arithmetic, 3, plan.arithmetic);
    plan.arithmetic_is_exact = lanes.arithmetic_is_exact(normalization.table, normalization.arithmetic);
    std::copy_n(normalization.scale, 3, plan.scale);
    std::copy_n(normalization.bias, 3, plan.bias);
    plan.source_bytes = round_up(3 * static_cast<std::ptrdiff_t>(W) + 12 * columns.quads + kRowSlack, 8);
    plan.row_bytes = bilinear ? 12 * static_cast<std::ptrdiff_t>(W) : 3 * static_cast<std::ptrdiff_t>(w);
    plan.row_bytes = round_up(plan.row_bytes + kRowSlack, 64);
    plan.slots = bilinear ? 1 : rows.most() + kRowsTogether;

    const int band = band_rows(h, shape.N, num_threads);
    const std::int64_t bands = (h + band - 1) / band;
    const std::ptrdiff_t scratch_bytes = preprocess_scratch_bytes(plan);
    const std::size_t image_values = static_cast<std::size_t>(3) * h * w;
    std::atomic<bool> out_of_memory{false};
    parallel_for(shape.N * bands, [&](std::int64_t task) {
      const std::int64_t n = task / bands;
      const int first = static_cast<int>(task % bands) * band, last = std::min(first + band, h);
      const std::unique_ptr<std::uint8_t[]> scratch(new (std::nothrow) std::uint8_t[scratch_bytes]);
      if (!scratch) {
        out_of_memory = true;
        return;
      }
      char* const to = static_cast<char*>(tensor) + n * image_values * bytes_of(options.element);
      lanes.band(plan, images.first + n * images.image_stride, to, first, last, scratch.get());
    });
    return !out_of_memory;
  } catch (const std::bad_alloc&) {
    return false;
  }
}

std::vector<std::uint32_t> preprocess_plan(const PreprocessShape& shape, const PreprocessOptions& options) {
  const Normalization normalization(options);
  std::vector<std::uint32_t> plan(kPlanWeights);
  std::memcpy(plan.data() + kPlanTable, normalization.table, sizeof(normalization.table));
  std::memcpy(plan.data() + kPlanScale, normalization.scale, sizeof(normalization.scale));
  std::memcpy(plan.data() + kPlanBias, normalization.bias, sizeof(normalization.bias));
  if (interpolates(shape, options)) return plan;

  const int w = static_cast<int>(shape.w), h = static_cast<int>(shape.h);
  const FixedTaps columns(static_cast<int>(shape.W), w), rows(static_cast<int>(shape.H), h);
  plan[kPlanColumnQuads] = static_cast<std::uint32_t>(columns.quads);
  plan.insert(plan.end(), columns.first.begin(), columns.first.end());
  for (int quad = 0; quad < columns.quads; ++quad) {
    for (int byte = 0; byte < 3; ++byte) {
      for (int x = 0; x < w; ++x) {
        const std::size_t at = (static_cast<std::size_t>(x) * columns.quads + quad) * 4;
        plan.push_back(packed_bytes(columns.weights.data() + at, byte));
      }
    }
  }
  // Rows are summed four to a word: their lists begin at a multiple of four, with zeros before the first tap.
  int quads = 1;
  for (int y = 0; y < h; ++y) quads = std::max(quads, (rows.first[y] % 4 + rows.taps[y] + 3) / 4);
  plan[kPlanRowQuads] = static_cast<std::uint32_t>(quads);
  for (int y = 0; y < h; ++y) plan.push_back(static_cast<std::uint32_t>(rows.first[y] / 4));
  std::vector<std::int32_t> weights(static_cast<std::size_t>(quads) * 4);
  for (int y = 0; y < h; ++y) {
    std::fill(weights.begin(), weights.end(), 0);
    for (int tap = 0; tap < rows.taps[y]; ++tap) weights[rows.first[y] % 4 + tap] = rows.weight(y, tap);
    for (int quad = 0; quad < quads; ++quad) {
      for (int byte = 0; byte < 3; ++byte) plan.push_back(packed_bytes(weights.data() + 4 * quad, byte));
    }
  }
  return plan;
}

}  // namespace edgeseg
