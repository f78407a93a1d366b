// The vector code of preprocess, compiled once per instruction set with its own EDGESEG_LANES and
// EDGESEG_LANES_NAMESPACE: here a band of output rows. The specification is preprocess.h.
#include "preprocess/preprocess_lanes.h"

#include "preprocess/lanes_antialias.h"
#include "preprocess/lanes_bilinear.h"
#include "preprocess/lanes_normalize.h"

namespace edgeseg {
namespace {

// Rows of the source, already at the output's width, by their number; scratch has `slots` of them.
struct Ring {
  const PreprocessPlan& plan;
  const std::uint8_t* image;
  std::uint8_t* memory;     // [slots][row_bytes]
  std::uint8_t* copies;     // [kRowsTogether][source_bytes]
  const std::uint8_t** at;  // [slots]

  std::uint8_t* slot(int row) const { return memory + row % plan.slots * plan.row_bytes; }
  const std::uint8_t* operator[](int row) const { return at[row % plan.slots]; }

  // The source row, or a copy of it where vectors would read past the image's last byte.
  const std::uint8_t* source(int row, std::uint8_t* copy) const {
    const std::ptrdiff_t begin = row * plan.pitch, bytes = 3 * static_cast<std::ptrdiff_t>(plan.W);
    if (begin + plan.source_bytes <= plan.end) return image + begin;
    std::memcpy(copy, image + begin, static_cast<std::size_t>(bytes));
    return copy;
  }
};

// Source rows [row, row + count), their columns resized.
void make_rows(const Ring& ring, int row, int count) {
  const PreprocessPlan& plan = ring.plan;
  const std::uint8_t* from[kRowsTogether];
  std::uint8_t* to[kRowsTogether];
  for (int i = 0; i < count; ++i) {
    const std::uint8_t*& made = ring.at[(row + i) % plan.slots];
    to[i] = ring.slot(row + i);
    if (plan.columns.same) {
      made = ring.source(row + i, to[i]);
    } else {
      from[i] = ring.source(row + i, ring.copies + i * plan.source_bytes);
      made = to[i];
    }
  }
  if (plan.columns.same) return;
  for (int i = count; i < kRowsTogether; ++i) {  // the last row again, to the same place
    from[i] = from[count - 1];
    to[i] = to[count - 1];
  }
  resize_columns(plan.columns, plan.w, from, to);
}

void antialias_band(const PreprocessPlan& plan, const Ring& ring, std::uint8_t* line, const std::uint8_t** tap_rows,
                    void* tensor, int first, int last) {
  const auto top_of = [&](int y) { return plan.rows.same ? y : plan.rows.first[y]; };
  const auto taps_of = [&](int y) { return plan.rows.same ? 1 : plan.rows.taps[y]; };
  const int end = top_of(last - 1) + taps_of(last - 1);
  int made = top_of(first);
  for (int y = first; y < last; ++y) {
    const int top = top_of(y), taps = taps_of(y);
    if (made < top) made = top;
    while (made < top + taps) {
      const int count = end - made < kRowsTogether ? end - made : kRowsTogether;
      make_rows(ring, made, count);
      made += count;
    }
    const std::uint8_t* resized = ring[top];
    if (!plan.rows.same) {
      for (int tap = 0; tap < taps; ++tap) tap_rows[tap] = ring[top + tap];
      tap_rows[taps] = tap_rows[taps - 1];  // taps may be summed in pairs, the weight after the last being 0
      const std::int32_t* weights = plan.rows.weights + static_cast<std::ptrdiff_t>(y) * 4 * plan.rows.quads;
      resize_rows(3 * plan.w, taps, tap_rows, weights, line);
      resized = line;
    }
    const std::ptrdiff_t at = static_cast<std::ptrdiff_t>(y) * plan.w;
    plan.half ? normalize_row<F16>(plan, resized, tensor, at) : normalize_row<F32>(plan, resized, tensor, at);
  }
}

void bilinear_band(const PreprocessPlan& plan, const Ring& ring, void* tensor, int first, int last) {
  float* const line = reinterpret_cast<float*>(ring.memory);
  for (int y = first; y < last; ++y) {
    const int low = plan.float_rows.low[y], high = low + (low + 1 < plan.H ? 1 : 0);
    const std::uint8_t* top = ring.source(low, ring.copies);
    const std::uint8_t* bottom = ring.source(high, ring.copies + plan.source_bytes);
    plan.half ? interpolate_row<F16>(plan, top, bottom, y, line, tensor)
              : interpolate_row<F32>(plan, top, bottom, y, line, tensor);
  }
}

}  // namespace

namespace EDGESEG_LANES_NAMESPACE {

bool preprocess_arithmetic_is_exact(const float* table, const Arithmetic* arithmetic) {
  bool exact = true;
  for (int c = 0; c < 3; ++c) {
    for (int x = 0; x < 256; x += kLanes) {
      float levels[kLanes];
      for (int i = 0; i < kLanes; ++i) levels[i] = static_cast<float>(x + i);
      const Floats values = computed(Constants(arithmetic[c]), load<Floats>(levels));
      exact &= std::memcmp(&values, table + 256 * c + x, sizeof(values)) == 0;
    }
  }
  return exact;
}

void preprocess_band(const PreprocessPlan& plan, const std::uint8_t* image, void* tensor, int first, int last,
                     std::uint8_t* scratch) {
  const auto rows = reinterpret_cast<const std::uint8_t**>(scratch);
  std::uint8_t* memory = scratch + 2 * (plan.slots + 1) * sizeof(*rows);
  const std::ptrdiff_t ring_bytes = plan.slots * plan.row_bytes;
  const Ring ring = {plan, image, memory + plan.row_bytes, memory + plan.row_bytes + ring_bytes, rows};
  if (plan.bilinear) {
    bilinear_band(plan, ring, tensor, first, last);
  } else {
    antialias_band(plan, ring, memory, rows + plan.slots, tensor, first, last);
  }
}

}  // namespace EDGESEG_LANES_NAMESPACE
}  // namespace edgeseg
