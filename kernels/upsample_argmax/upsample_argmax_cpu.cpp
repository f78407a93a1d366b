// The host side of upsample_argmax on CPU: tables, bands, the choice of instruction set.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "common/bilinear.h"
#include "upsample_argmax/upsample_argmax.h"
#include "upsample_argmax/upsample_argmax_lanes.h"

namespace edgeseg {
namespace {

struct Lanes {
  int count;
  UpsampleArgmaxBand band;
  Widen widen;
};

Lanes lanes_of(InstructionSet set) {
  switch (set == InstructionSet::kAutomatic ? best_instruction_set() : set) {
#if EDGESEG_X86
    case InstructionSet::kAvx2:
      return {8, avx2::upsample_argmax_band, avx2::widen};
    case InstructionSet::kAvx512:
      return {16, avx512::upsample_argmax_band, avx512::widen};
#endif
    case InstructionSet::kLanes16:
      return {16, lanes16::upsample_argmax_band, lanes16::widen};
    default:
      return {4, portable::upsample_argmax_band, portable::widen};
  }
}

struct Axis {
  int cells, outputs, border = 0;
  bool same_size;
  std::vector<int> start;        // of the outputs of each cell
  std::vector<float> low, high;  // weights of each output

  // Cells from in_size on (padding) own nothing.
  Axis(const BilinearAxis& axis, int padded)
      : cells(padded),
        outputs(axis.out_size),
        same_size(axis.in_size == axis.out_size),
        start(padded + 1, axis.out_size) {
    low.resize(outputs);
    high.resize(outputs);
    while (border < outputs && axis.source(border) < 0.0f) ++border;
    int cell = 0;
    for (int out = 0; out < outputs; ++out) {
      const BilinearTap tap = axis.tap(out);
      low[out] = tap.weight_low;
      high[out] = tap.weight_high;
      if (out < border) continue;
      while (cell <= tap.low) start[cell++] = out;
    }
    start[0] = border;
  }

  int outputs_of(int cell) const { return start[cell + 1] - start[cell]; }
  AxisView view() const { return {cells, outputs, border, same_size, start.data()}; }
};

// The column weights rearranged for lanes: [phase][cell].
struct Phases {
  int count = 1, uniform, longest_tile = 0;
  std::vector<float> low, high;

  Phases(const Axis& columns, int lanes) {
    const int width = columns.cells;
    uniform = columns.outputs_of(0);
    for (int cell = 0; cell < width; ++cell) {
      const int outputs = columns.outputs_of(cell);
      count = std::max(count, outputs);
      if (cell < width - 1 && outputs != uniform) uniform = 0;
      if (cell + lanes <= width) {
        longest_tile = std::max(longest_tile, columns.start[cell + lanes] - columns.start[cell]);
      }
    }
    low.assign(static_cast<std::size_t>(count) * width, 1.0f);
    high.assign(static_cast<std::size_t>(count) * width, 0.0f);
    for (int cell = 0; cell < width; ++cell) {
      for (int phase = 0; phase < columns.outputs_of(cell); ++phase) {
        const std::size_t at = static_cast<std::size_t>(phase) * width + cell;
        low[at] = columns.low[columns.start[cell] + phase];
        high[at] = columns.high[columns.start[cell] + phase];
      }
    }
  }
};

// The rows of the logits as the lanes want them: float32, at least as wide as a vector; where they are not, widened and
// repeated to that width by their last value, which is what lies right of the last cell.
struct Rows {
  const void* logits;
  Element element;
  int h, w, width;
  Widen widen;

  bool as_they_are() const { return element == Element::kF32 && width == w; }

  void copy(std::int64_t row, float* to) const {
    if (element == Element::kF32) {
      std::copy_n(static_cast<const float*>(logits) + row * w, w, to);
    } else {
      widen(static_cast<const std::uint16_t*>(logits) + row * w, to, w, element == Element::kF16);
    }
    std::fill_n(to + w, width - w, to[w - 1]);
  }

  // Rows [first, first + count) of every class of image n: (classes, count, width).
  std::unique_ptr<float[]> copied(std::int64_t n, int classes, int first, int count) const {
    std::unique_ptr<float[]> rows(new (std::nothrow) float[static_cast<std::size_t>(classes) * count * width]);
    if (!rows) return rows;
    float* to = rows.get();
    for (int k = 0; k < classes; ++k) {
      for (int row = 0; row < count; ++row, to += width) copy((n * classes + k) * h + first + row, to);
    }
    return rows;
  }
};

// A band's piece of memory, cut up: four-byte parts first, bytes after them.
struct BandMemory {
  std::unique_ptr<std::uint32_t[]> words;
  UpsampleArgmaxScratch scratch;

  BandMemory(int classes, int width, int lanes, const Phases& phases) {
    const std::size_t packed = static_cast<std::size_t>(4) * ((phases.count + 3) / 4) * lanes;
    const std::size_t maxima = static_cast<std::size_t>(width / lanes + 1) * classes * lanes;
    const std::size_t list = static_cast<std::size_t>(classes) + 1;
    const std::size_t bytes = static_cast<std::size_t>(phases.longest_tile) + 8 + static_cast<std::size_t>(2) * width;
    const std::size_t corners = static_cast<std::size_t>(4) * lanes * list;
    constexpr std::size_t kLine = 16;  // words of a cache line, with which the corners begin
    words.reset(new (std::nothrow) std::uint32_t[kLine + corners + packed + 2 * maxima + list + (bytes + 3) / 4]);
    if (!words) return;
    const std::size_t off = reinterpret_cast<std::uintptr_t>(words.get()) / 4 % kLine;
    scratch.corners = reinterpret_cast<float*>(words.get() + (kLine - off));
    scratch.packed = reinterpret_cast<std::uint32_t*>(scratch.corners) + corners;
    scratch.maxima[0] = reinterpret_cast<float*>(scratch.packed + packed);
    scratch.maxima[1] = scratch.maxima[0] + maxima;
    scratch.list = reinterpret_cast<int*>(scratch.maxima[1] + maxima);
    scratch.labels[0] = reinterpret_cast<std::uint8_t*>(scratch.list + list);
    scratch.labels[1] = scratch.labels[0] + width;
    scratch.segment = scratch.labels[1] + width;
  }
};

// Cell rows in one band: enough bands for the threads to share evenly, few enough that labelling the row between two
// bands twice costs little.
int band_rows(int h, std::int64_t images, int num_threads) {
  constexpr int kFewest = 8, kMost = 32;
  const std::int64_t wanted = num_threads <= 1 ? 1 : 4 * static_cast<std::int64_t>(num_threads);
  return std::clamp<int>(static_cast<int>(h * images / std::max<std::int64_t>(wanted, 1)), kFewest, kMost);
}

}  // namespace

const char* upsample_argmax_fault(const UpsampleArgmaxShape& s) {
  if (s.N < 0) return "a negative batch";
  if (s.C < 1 || s.C > kMaxWideClasses) return "classes not in [1, 65535]";
  for (const std::int64_t side : {s.h, s.w, s.H, s.W}) {
    if (side < 1 || side > kMaxSide) return "a height or width not in [1, 2^22]";
  }
  return nullptr;
}

bool upsample_argmax_cpu(const void* logits, Element element, void* labels, float* margin,
                         const UpsampleArgmaxShape& shape, bool align_corners, InstructionSet instruction_set,
                         int num_threads, const ParallelFor& parallel_for) {
  if (shape.N == 0) return true;
  try {
    const Lanes lanes = lanes_of(instruction_set);
    const int classes = static_cast<int>(shape.C), h = static_cast<int>(shape.h), w = static_cast<int>(shape.w);
    const int width = std::max(w, lanes.count);
    const Rows source = {logits, element, h, w, width, lanes.widen};
    const Axis rows(BilinearAxis(h, static_cast<int>(shape.H), align_corners), h);
    const Axis columns(BilinearAxis(w, static_cast<int>(shape.W), align_corners), width);
    const Phases phases(columns, lanes.count);
    const std::int64_t outputs = shape.H * shape.W;
    const int band = band_rows(h, shape.N, num_threads);
    const std::int64_t bands = (h + band - 1) / band;
    std::atomic<bool> out_of_memory{false};
    parallel_for(shape.N * bands, [&](std::int64_t task) {
      const std::int64_t n = task / bands;
      const int first = static_cast<int>(task % bands) * band, last = std::min(first + band, h);
      const BandMemory memory(classes, width, lanes.count, phases);
      std::ptrdiff_t plane = static_cast<std::ptrdiff_t>(h) * w;
      const float* from = static_cast<const float*>(logits) + n * classes * plane + static_cast<std::ptrdiff_t>(first) * w;
      std::unique_ptr<float[]> copied;
      if (!source.as_they_are()) {
        const int count = std::min(last + 1, h) - first;  // the cells of the last row reach into the next band
        copied = source.copied(n, classes, first, count);
        from = copied.get();
        plane = static_cast<std::ptrdiff_t>(count) * width;
      }
      if (!memory.words || from == nullptr) {
        out_of_memory = true;
        return;
      }
      const UpsampleArgmaxPlan plan = {classes,         width,          plane,
                                       rows.view(),     columns.view(), rows.low.data(),
                                       rows.high.data(), phases.count,  phases.uniform,
                                       phases.low.data(), phases.high.data()};
      const bool wide = classes > kMaxClasses;
      lanes.band(plan, from,
                 {wide ? nullptr : static_cast<std::uint8_t*>(labels) + n * outputs,
                  wide ? static_cast<std::int32_t*>(labels) + n * outputs : nullptr,
                  margin ? margin + n * outputs : nullptr},
                 first, last, memory.scratch);
    });
    return !out_of_memory;
  } catch (const std::bad_alloc&) {
    return false;
  }
}

}  // namespace edgeseg
