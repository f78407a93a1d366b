// The vector code of upsample_argmax, compiled once per instruction set with its own EDGESEG_LANES and
// EDGESEG_LANES_NAMESPACE: here a band of cell rows. The specification is upsample_argmax.h.
#include "upsample_argmax/upsample_argmax_lanes.h"

#include "common/lanes_element.h"
#include "upsample_argmax/lanes_scores.h"
#include "upsample_argmax/lanes_tile.h"

namespace edgeseg {
namespace {

// Are the kLanes bytes at `labels` all `label`?
EDGESEG_INLINE bool all_are(const std::uint8_t* labels, std::uint8_t label) {
  const std::uint32_t wanted = label * 0x01010101u;
  std::uint32_t differ = 0;
  for (int i = 0; i < kLanes; i += 4) differ |= load<std::uint32_t>(labels + i) ^ wanted;
  return differ == 0;
}

EDGESEG_INLINE bool any_is_marked(const std::uint8_t* labels, int count) {
  bool any = false;
  for (int i = 0; i < count; ++i) any |= labels[i] == kMarked;
  return any;
}

// The lists of a band so far: where they hold nearly all classes, as on noise, listing costs more than it saves.
struct Lists {
  long tiles = 0, listed = 0;
  bool useless(int classes) const { return tiles >= 16 && listed > tiles * classes * 3 / 4; }
};

// One row of cells: source rows `top` and `bottom` labelled, output rows [y, y_end) to be made.
struct CellRow {
  const Plan& plan;
  const float* logits;  // of the top source row
  std::ptrdiff_t below;
  const LabelledRow& top;
  const LabelledRow& bottom;
  int y, y_end;
  std::uint8_t* labels;  // (H, W)
  const Scratch& scratch;
  Lists& lists;

  void fill(int x, int x_end, std::uint8_t label) const {
    for (int row = y; row < y_end; ++row) {
      std::memset(labels + static_cast<std::ptrdiff_t>(row) * plan.columns.outputs + x, label,
                  static_cast<std::size_t>(x_end - x));
    }
  }

  // A tile whose corners' labels are not all the same.
  template <bool kLast>
  void compute(int cell) const {
    const Tile tile = {logits + cell, below, plan.plane, plan.columns.same_size};
    const int corners = kLast ? kLanes : kLanes + 1;
    const bool marked = any_is_marked(top.labels + cell, corners) || any_is_marked(bottom.labels + cell, corners);
    Contest contest = {scratch.list, scratch.corners, plan.classes};
    if (marked || lists.useless(plan.classes)) {
      for (int k = 0; k < plan.classes; ++k) scratch.list[k] = k;
      collect<kLast>(plan, tile, scratch.corners);
    } else {
      contest.listed = survivors<kLast>(plan, tile, cell, top, bottom, scratch.list, scratch.corners);
      lists.tiles += 1;
      lists.listed += contest.listed;
    }
    if (marked) {
      tile_all_rows<true>(plan, contest, cell, y, y_end, labels, scratch);
    } else {
      tile_all_rows<false>(plan, contest, cell, y, y_end, labels, scratch);
    }
  }

  void run() const {
    int run_x = 0, run_end = 0;  // unanimous tiles side by side with one label, not yet filled
    std::uint8_t run_label = 0;
    for (int next = 0; next < plan.width; next += kLanes) {
      const bool last = next + kLanes >= plan.width;  // moved back to end with the row; it may overlap its neighbour
      const int cell = last ? plan.width - kLanes : next;
      const int x = cell == 0 ? 0 : plan.columns.start[cell], x_end = plan.columns.start[cell + kLanes];
      if (x == x_end) continue;
      const std::uint8_t* above = top.labels + cell;
      const std::uint8_t* under = bottom.labels + cell;
      const std::uint8_t label = above[0];
      const bool unanimous = label != kMarked && all_are(above, label) && all_are(under, label) &&
                             (last || (above[kLanes] == label && under[kLanes] == label));
      const bool extends = unanimous && run_end > 0 && label == run_label;
      if (!extends) {
        if (run_end > 0) fill(run_x, run_end, run_label);
        run_x = x;
      }
      run_end = unanimous ? x_end : 0;
      run_label = label;
      if (!unanimous) {
        if (last) {
          compute<true>(cell);
        } else {
          compute<false>(cell);
        }
      }
    }
    if (run_end > 0) fill(run_x, run_end, run_label);
  }
};

template <typename E>
void widen_all(const std::uint16_t* from, float* to, int count) {
  int i = 0;
  for (; i + kLanes <= count; i += kLanes) store(to + i, load_floats<E>(from + i));
  if (i < count) store_floats<F32>(to + i, load_floats<E>(from + i, count - i), count - i);
}

template <typename T>
void copy_elements(T* outputs, std::ptrdiff_t to, std::ptrdiff_t from, std::ptrdiff_t count) {
  if (outputs) std::memcpy(outputs + to, outputs + from, sizeof(T) * count);
}

void copy_row(const UpsampleArgmaxOutputs& outputs, std::ptrdiff_t to, std::ptrdiff_t from, std::ptrdiff_t count) {
  copy_elements(outputs.labels, to, from, count);
  copy_elements(outputs.wide, to, from, count);
  copy_elements(outputs.margin, to, from, count);
}

}  // namespace

namespace EDGESEG_LANES_NAMESPACE {

void upsample_argmax_band(const UpsampleArgmaxPlan& plan, const float* logits, const UpsampleArgmaxOutputs& outputs,
                          int first, int last, const UpsampleArgmaxScratch& scratch) {
  // Two source rows at a time; the lower one of a cell row is the upper one of the next, still in cache.
  LabelledRow rows[2] = {{scratch.labels[0], scratch.maxima[0], false}, {scratch.labels[1], scratch.maxima[1], false}};
  int held[2] = {-1, -1};
  const auto source = [&](int row) { return logits + static_cast<std::ptrdiff_t>(row - first) * plan.width; };
  const auto labelled = [&](int row) -> const LabelledRow& {
    const int slot = row % 2;
    if (held[slot] != row) {
      label_row(plan, source(row), &rows[slot]);
      held[slot] = row;
    }
    return rows[slot];
  };
  const bool scored = outputs.wide || outputs.margin;
  Lists lists;
  for (int i = first; i < last; ++i) {
    // Above the first pixel's centre one row stands for all: the last of the border.
    const int border = i == 0 ? plan.rows.border : 0;
    const int y = plan.rows.start[i] - (border > 0 ? 1 : 0), y_end = plan.rows.start[i + 1];
    if (y == y_end) continue;
    const bool has_below = i + 1 < plan.rows.cells && !plan.rows.same_size;
    const std::ptrdiff_t below = has_below ? plan.width : 0;
    if (scored) {
      score_cell_row(plan, source(i), below, y, y_end, outputs, scratch);
    } else {
      const LabelledRow& top = labelled(i);
      const LabelledRow& bottom = has_below ? labelled(i + 1) : top;
      const CellRow cells = {plan, source(i), below, top, bottom, y, y_end, outputs.labels, scratch, lists};
      cells.run();
    }
    const std::ptrdiff_t pitch = plan.columns.outputs;
    for (int copy = 0; copy + 1 < border; ++copy) copy_row(outputs, copy * pitch, (border - 1) * pitch, pitch);
  }
}

void widen(const std::uint16_t* from, float* to, int count, bool is_f16) {
  if (is_f16) {
    widen_all<F16>(from, to, count);
  } else {
    widen_all<Bf16>(from, to, count);
  }
}

}  // namespace EDGESEG_LANES_NAMESPACE
}  // namespace edgeseg
