// Step 2 of upsample_argmax: one tile of kLanes cells, one lane each: which classes can win, and which does. Part of
// the vector code: included by upsample_argmax_lanes.cpp only.
#pragma once

#include "upsample_argmax/lanes_label.h"

namespace edgeseg {
namespace {

constexpr int kRows = 4;  // output rows interpolated together: best and class of each stay in registers

// The corners of one tile: `top` points at the top left corner of its first cell in class 0; `below` leads to the next
// source row (0 in the last). In the last tile, right corners come from the neighbouring lane: there is nothing to load
// right of the last column, which is its own neighbour.
struct Tile {
  const float* top;
  std::ptrdiff_t below;
  std::ptrdiff_t plane;
  bool same_width;
};

// The corners of one class, copied out of the logits: planes lie powers of two apart, so that the same place in all
// classes shares one set of the cache, from which each would push out the next.
struct Corners {
  Floats top_left, top_right, bottom_left, bottom_right;
};
constexpr int kCornerFloats = 4 * kLanes;

EDGESEG_INLINE Corners load_corners(const float* from) {
  return {load<Floats>(from), load<Floats>(from + kLanes), load<Floats>(from + 2 * kLanes),
          load<Floats>(from + 3 * kLanes)};
}

EDGESEG_INLINE void store_corners(float* to, const Corners& corners) {
  store(to, corners.top_left);
  store(to + kLanes, corners.top_right);
  store(to + 2 * kLanes, corners.bottom_left);
  store(to + 3 * kLanes, corners.bottom_right);
}

template <bool kLast>
EDGESEG_INLINE Floats right_of(const float* at, Floats left) {
  return kLast ? next_lane(left) : load<Floats>(at + 1);
}

template <bool kLast>
EDGESEG_INLINE Corners corners_of(const Tile& tile, int k) {
  const float* at = tile.top + k * tile.plane;
  const Floats top = load<Floats>(at), bottom = load<Floats>(at + tile.below);
  return {top, right_of<kLast>(at, top), bottom, right_of<kLast>(at + tile.below, bottom)};
}

// All classes' corners, for a tile where none can be left out. Where the width does not change, the right corners have
// the weight 0 and are the left ones, lest an infinity among them make a NaN.
template <bool kLast>
void collect(const Plan& plan, const Tile& tile, float* corners) {
  for (int k = 0; k < plan.classes; ++k) {
    Corners own = corners_of<kLast>(tile, k);
    if (tile.same_width) own = {own.top_left, own.top_left, own.bottom_left, own.bottom_left};
    store_corners(corners + static_cast<std::ptrdiff_t>(k) * kCornerFloats, own);
  }
}

// Lists the classes whose greatest logit in the tile's block (two, when the tile reaches into the next), in either
// source row, is at least `bound`: what may be worth a closer look.
template <bool kTwoBlocks>
int candidates(const float* const maxima[4], int classes, float bound, int* list) {
  const Floats least = broadcast(bound);
  int listed = 0;
  for (int at = 0, k = 0; k < classes; ++k, at += kLanes) {
    Floats most = max(load<Floats>(maxima[0] + at), load<Floats>(maxima[1] + at));
    if (kTwoBlocks) most = max(most, max(load<Floats>(maxima[2] + at), load<Floats>(maxima[3] + at)));
    list[listed] = k;
    listed += any_at_least(most, least);
  }
  return listed;
}

// Adds the labels that are not among the `count` distinct ones yet; their new count.
int add_distinct(const std::uint8_t* labels, int corners, std::uint8_t* distinct, int count) {
  for (int i = 0; i < corners; ++i) {
    if (count > 0 && labels[i] == distinct[count - 1]) continue;
    bool seen = false;
    for (int j = 0; j < count; ++j) seen |= distinct[j] == labels[i];
    if (!seen) distinct[count++] = labels[i];
  }
  return count;
}

// What a class must reach at some corner of a lane's cell to be able to win there: the greatest, over the classes that
// are best at some corner of the tile, of the class's least corner (M in upsample_argmax.h, over a subset). A unanimous
// lane wants its own class only, hence that class's greatest corner.
template <bool kLast>
Floats bound_of(const Tile& tile, const std::uint8_t* top_labels, const std::uint8_t* bottom_labels) {
  std::uint8_t distinct[2 * (kLanes + 1)];
  constexpr int kCorners = kLast ? kLanes : kLanes + 1;
  int count = add_distinct(top_labels, kCorners, distinct, 0);
  count = add_distinct(bottom_labels, kCorners, distinct, count);
  const Ints top_left = __builtin_convertvector(load<Bytes>(top_labels), Ints);
  const Ints bottom_left = __builtin_convertvector(load<Bytes>(bottom_labels), Ints);
  const Ints top_right = kLast ? next_lane(top_left) : __builtin_convertvector(load<Bytes>(top_labels + 1), Ints);
  const Ints bottom_right =
      kLast ? next_lane(bottom_left) : __builtin_convertvector(load<Bytes>(bottom_labels + 1), Ints);
  const Ints unanimous = (top_left == top_right) & (top_left == bottom_left) & (top_left == bottom_right);

  Floats bound = broadcast(-__builtin_inff());
  for (int i = 0; i < count; ++i) {
    const auto [a, b, c, d] = corners_of<kLast>(tile, distinct[i]);
    const Ints own = unanimous & (top_left == broadcast(static_cast<std::int32_t>(distinct[i])));
    bound = max(own ? max(max(a, b), max(c, d)) : min(min(a, b), min(c, d)), bound);
  }
  return bound - max(bound, -bound) * 0x1p-20f;
}

// Lists the classes that can win somewhere in the tile, ascending, and their corners.
template <bool kLast>
int survivors(const Plan& plan, const Tile& tile, int cell, const LabelledRow& top, const LabelledRow& bottom,
              int* list, float* corners) {
  const Floats bound = bound_of<kLast>(tile, top.labels + cell, bottom.labels + cell);
  int listed = plan.classes;
  if (top.marked || bottom.marked) {
    for (int k = 0; k < listed; ++k) list[k] = k;
  } else {
    float least = bound[0];
    for (int lane = 1; lane < kLanes; ++lane) least = bound[lane] < least ? bound[lane] : least;
    const int block = block_pixels(plan.width), entry = plan.classes * kLanes;
    const int first = cell / block * entry, second = (cell + (kLast ? kLanes - 1 : kLanes)) / block * entry;
    const float* const maxima[4] = {top.maxima + first, bottom.maxima + first, top.maxima + second,
                                    bottom.maxima + second};
    listed = first == second ? candidates<false>(maxima, listed, least, list)
                             : candidates<true>(maxima, listed, least, list);
  }
  int kept = 0;
  for (int i = 0; i < listed; ++i) {
    const Corners own = corners_of<kLast>(tile, list[i]);
    const Floats most = max(max(own.top_left, own.top_right), max(own.bottom_left, own.bottom_right));
    store_corners(corners + static_cast<std::ptrdiff_t>(kept) * kCornerFloats, own);
    list[kept] = list[i];
    kept += any_at_least(most, bound);
  }
  return kept;
}

// The classes at work in a tile: their numbers, ascending, and their corners.
struct Contest {
  const int* list;
  const float* corners;
  int listed;
};

// Labels of one phase of kR output rows: argmax over the listed classes, which ascend, so that `>` keeps the lowest.
template <int kR, bool kNan>
EDGESEG_INLINE void interpolate(const Contest& contest, Floats column_low, Floats column_high, const float* row_low,
                                const float* row_high, Ints* which) {
  Floats best[kR], low[kR], high[kR];
  for (int r = 0; r < kR; ++r) {
    best[r] = broadcast(-__builtin_inff());
    which[r] = broadcast(contest.list[0]);
    low[r] = broadcast(row_low[r]);
    high[r] = broadcast(row_high[r]);
  }
  const float* at = contest.corners;
  for (int i = 0; i < contest.listed; ++i, at += kCornerFloats) {
    const Corners own = load_corners(at);
    const Floats top = own.top_left * column_low + own.top_right * column_high;
    const Floats bottom = own.bottom_left * column_low + own.bottom_right * column_high;
    const Ints here = broadcast(contest.list[i]);
    for (int r = 0; r < kR; ++r) {
      const Floats value = top * low[r] + bottom * high[r];
      if (kNan) {  // a NaN is better than any number, and nothing is better than a NaN
        const Ints better = ~(value <= best[r]) & (best[r] == best[r]);
        best[r] = better ? value : best[r];
        which[r] = better ? here : which[r];
      } else {
        const Ints better = value > best[r];
        best[r] = max(value, best[r]);
        which[r] = better ? here : which[r];
      }
    }
  }
}

struct Output {
  std::uint8_t* row;  // the first of the output rows that are made together
  std::ptrdiff_t pitch;
};

// The packed phases of one row (4 to a word, cell after cell) as consecutive labels from columns.start[cell] on.
EDGESEG_INLINE void store_row(const Plan& plan, int cell, const std::uint32_t* packed, int groups, std::uint8_t* row,
                              std::uint8_t* segment) {
  const int* start = plan.columns.start + cell;
  std::uint8_t* to = row + start[0];
  const int length = start[kLanes] - start[0];
  if (length == kLanes * plan.uniform) {
    if (plan.uniform == 4) {
      store(to, load<Words>(packed));
      return;
    }
    if (plan.uniform == 8) {
      const Words low = load<Words>(packed), high = load<Words>(packed + kLanes);
      std::uint32_t words[2 * kLanes];
      for (int lane = 0; lane < kLanes; ++lane) {
        words[2 * lane] = low[lane];
        words[2 * lane + 1] = high[lane];
      }
      std::memcpy(to, words, sizeof(words));
      return;
    }
    if (plan.uniform == 2) {
      store(to, __builtin_convertvector(load<Words>(packed), Halves));
      return;
    }
  }
  // Each cell's whole words; what is too much of them is overwritten by the next cell, and by the segment's own end.
  for (int lane = 0; lane < kLanes; ++lane) {
    std::uint8_t* at = segment + (start[lane] - start[0]);
    const int count = start[lane + 1] - start[lane];
    for (int group = 0; 4 * group < count && group < groups; ++group) {
      std::memcpy(at + 4 * group, packed + group * kLanes + lane, 4);
    }
  }
  std::memcpy(to, segment, static_cast<std::size_t>(length));
}

template <int kR, bool kNan>
void tile_rows(const Plan& plan, const Contest& contest, int cell, const float* row_low, const float* row_high,
               const Output& out, const Scratch& scratch) {
  Ints which[kR];
  const int groups = (plan.phases + 3) / 4;
  Words word[kR] = {};
  for (int phase = 0; phase < plan.phases; ++phase) {
    const std::ptrdiff_t at = static_cast<std::ptrdiff_t>(phase) * plan.width + cell;
    interpolate<kR, kNan>(contest, load<Floats>(plan.column_low + at), load<Floats>(plan.column_high + at), row_low,
                          row_high, which);
    const int within = phase % 4;
    for (int r = 0; r < kR; ++r) {
      const Words moved = (Words)which[r] << (8 * within);
      word[r] = within == 0 ? moved : word[r] | moved;
    }
    if (within == 3 || phase == plan.phases - 1) {
      for (int r = 0; r < kR; ++r) store(scratch.packed + (r * groups + phase / 4) * kLanes, word[r]);
    }
  }
  for (int r = 0; r < kR; ++r) {
    store_row(plan, cell, scratch.packed + r * groups * kLanes, groups, out.row + r * out.pitch, scratch.segment);
  }
  if (cell == 0 && plan.columns.border > 0) {
    interpolate<kR, kNan>(contest, broadcast(1.0f), broadcast(0.0f), row_low, row_high, which);
    for (int r = 0; r < kR; ++r) {
      std::memset(out.row + r * out.pitch, which[r][0], static_cast<std::size_t>(plan.columns.border));
    }
  }
}

template <bool kNan>
void tile_all_rows(const Plan& plan, const Contest& contest, int cell, int y, int y_end, std::uint8_t* labels,
                   const Scratch& scratch) {
  while (y < y_end) {
    const Output out = {labels + static_cast<std::ptrdiff_t>(y) * plan.columns.outputs, plan.columns.outputs};
    const float* low = plan.row_low + y;
    const float* high = plan.row_high + y;
    if (y_end - y >= kRows) {
      tile_rows<kRows, kNan>(plan, contest, cell, low, high, out, scratch);
      y += kRows;
    } else if (y_end - y >= 2) {
      tile_rows<2, kNan>(plan, contest, cell, low, high, out, scratch);
      y += 2;
    } else {
      tile_rows<1, kNan>(plan, contest, cell, low, high, out, scratch);
      y += 1;
    }
  }
}

}  // namespace
}  // namespace edgeseg
