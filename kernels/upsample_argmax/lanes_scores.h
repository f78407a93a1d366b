// The other way through upsample_argmax, for what pruning cannot give: the margin between the best two classes, and
// labels of more than 255 classes. Every class is interpolated at every output. Part of the vector code: included by
// upsample_argmax_lanes.cpp only.
#pragma once

#include "upsample_argmax/lanes_tile.h"

namespace edgeseg {
namespace {

// Where one output row goes, from the tile's first cell on. `labels` or `wide` is null, `margin` may be.
struct ScoredRow {
  std::uint8_t* labels;
  std::int32_t* wide;
  float* margin;
};

// Best class of one output row's phase, and by how much it beats the second. NaN is better than any number; a margin
// with a NaN in it is NaN, and of one class alone it is infinite.
EDGESEG_INLINE void score(const Contest& contest, Floats column_low, Floats column_high, float row_low, float row_high,
                          Ints* which, Floats* margin) {
  Floats best = broadcast(-__builtin_inff()), second = best;
  *which = broadcast(contest.list[0]);
  const float* at = contest.corners;
  for (int i = 0; i < contest.listed; ++i, at += kCornerFloats) {
    const Corners own = load_corners(at);
    const Floats top = own.top_left * column_low + own.top_right * column_high;
    const Floats bottom = own.bottom_left * column_low + own.bottom_right * column_high;
    const Floats value = top * broadcast(row_low) + bottom * broadcast(row_high);
    const Ints better = ~(value <= best) & (best == best);
    second = better ? best : max(value, second);
    best = better ? value : best;
    *which = better ? broadcast(contest.list[i]) : *which;
  }
  *margin = contest.listed > 1 ? best - second : best - best + broadcast(__builtin_inff());
}

EDGESEG_INLINE void put(const ScoredRow& row, int x, int label, float margin) {
  if (row.labels) row.labels[x] = static_cast<std::uint8_t>(label);
  if (row.wide) row.wide[x] = label;
  if (row.margin) row.margin[x] = margin;
}

// One output row of one tile; lanes below `first_lane` belong to the tile before.
void score_row(const Plan& plan, const Contest& contest, int cell, int first_lane, float row_low, float row_high,
               const ScoredRow& row) {
  const int* start = plan.columns.start + cell;
  Ints which;
  Floats margin;
  for (int phase = 0; phase < plan.phases; ++phase) {
    const std::ptrdiff_t at = static_cast<std::ptrdiff_t>(phase) * plan.width + cell;
    score(contest, load<Floats>(plan.column_low + at), load<Floats>(plan.column_high + at), row_low, row_high, &which,
          &margin);
    for (int lane = first_lane; lane < kLanes; ++lane) {
      const int x = start[lane] + phase;
      if (x < start[lane + 1]) put(row, x, which[lane], margin[lane]);
    }
  }
  if (cell == 0 && plan.columns.border > 0) {
    score(contest, broadcast(1.0f), broadcast(0.0f), row_low, row_high, &which, &margin);
    for (int x = 0; x < plan.columns.border; ++x) put(row, x, which[0], margin[0]);
  }
}

// Output rows [y, y_end) of one row of cells; `logits` points at its upper source row.
void score_cell_row(const Plan& plan, const float* logits, std::ptrdiff_t below, int y, int y_end,
                    const UpsampleArgmaxOutputs& outputs, const Scratch& scratch) {
  for (int k = 0; k < plan.classes; ++k) scratch.list[k] = k;
  for (int next = 0; next < plan.width; next += kLanes) {
    const bool last = next + kLanes >= plan.width;
    const int cell = last ? plan.width - kLanes : next;
    const Tile tile = {logits + cell, below, plan.plane, plan.columns.same_size};
    if (last) {
      collect<true>(plan, tile, scratch.corners);
    } else {
      collect<false>(plan, tile, scratch.corners);
    }
    const Contest contest = {scratch.list, scratch.corners, plan.classes};
    for (int row = y; row < y_end; ++row) {
      const std::ptrdiff_t at = static_cast<std::ptrdiff_t>(row) * plan.columns.outputs;
      const ScoredRow to = {outputs.labels ? outputs.labels + at : nullptr, outputs.wide ? outputs.wide + at : nullptr,
                            outputs.margin ? outputs.margin + at : nullptr};
      score_row(plan, contest, cell, next - cell, plan.row_low[row], plan.row_high[row], to);
    }
  }
}

}  // namespace
}  // namespace edgeseg
