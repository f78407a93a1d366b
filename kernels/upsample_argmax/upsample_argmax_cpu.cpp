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
};

Lanes lanes_of(InstructionSet set) {
  switch (set == InstructionSet::kAutomatic ? best_instruction_set() : set) {
#if EDGESEG_X86
    case InstructionSet::kAvx2:
      return {8, avx2::upsample_argmax_band};
    case InstructionSet::kAvx512:
      return {16, avx512::upsample_argmax_band};
#endif
    case InstructionSet::kLanes16:
      return {16, lanes16::upsample_argmax_band};
    default:
      return {4, portable::upsample_argmax_band};
  }
}

struct Axis {
  int cells, outputs, border = 0;
  bool same_size;
  std::vector<int> start;        // of the outputs of each cell
  std::vector<float> low, high;  // weights of each output

  // Cells from in_size on (padding) own nothing.
  Axis(int in_size, int out_size, int padded)
      : cells(padded), outputs(out_size), same_size(in_size == out_size), start(padded + 1, out_size) {
    low.resize(out_size);
    high.resize(out_size);
    const float scale = bilinear_scale(in_size, out_size);
    while (border < out_size && bilinear_source(border, scale) < 0.0f) ++border;
    int cell = 0;
    for (int out = 0; out < out_size; ++out) {
      const BilinearTap tap = bilinear_tap(out, in_size, out_size, scale);
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

// Rows narrower than a vector, repeated to its width by their last value, which is what lies right of the last cell.
std::vector<float> padded_rows(const float* logits, std::int64_t rows, int w, int width) {
  std::vector<float> padded(static_cast<std::size_t>(rows) * width);
  for (std::int64_t row = 0; row < rows; ++row) {
    float* to = padded.data() + row * width;
    std::copy_n(logits + row * w, w, to);
    std::fill_n(to + w, width - w, to[w - 1]);
  }
  return padded;
}

// A band's piece of memory, cut up: four-byte parts first, bytes after them.
struct BandMemory {
  std::unique_ptr<std::uint32_t[]> words;
  UpsampleArgmaxScratch scratch;

  BandMemory(int classes, int width, int lanes, const Phases& phases) {
    const std::size_t packed = static_cast<std::size_t>(4) * ((phases.count + 3) / 4) * lanes;
    const std::size_t maxima = static_cast<std::size_t>(width / lanes + 1) * classes * lanes;
    const std::size_t list = static_cast<std::size_t>(classes) + 1;
    const std::size_t bytes = static_cast<std::size_t>(phases.longest_tile) + 8 + static_cast<std::size_t>(2) * width;
    words.reset(new (std::nothrow) std::uint32_t[packed + 2 * maxima + list + (bytes + 3) / 4]);
    if (!words) return;
    scratch.packed = words.get();
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
  if (s.C < 1 || s.C > kMaxClasses) return "classes not in [1, 255]";
  for (const std::int64_t side : {s.h, s.w, s.H, s.W}) {
    if (side < 1 || side > kMaxSide) return "a height or width not in [1, 2^22]";
  }
  return nullptr;
}

bool upsample_argmax_cpu(const float* logits, std::uint8_t* labels, const UpsampleArgmaxShape& shape,
                         InstructionSet instruction_set, int num_threads, const ParallelFor& parallel_for) {
  if (shape.N == 0) return true;
  try {
    const Lanes lanes = lanes_of(instruction_set);
    const int classes = static_cast<int>(shape.C), h = static_cast<int>(shape.h), w = static_cast<int>(shape.w);
    const int width = std::max(w, lanes.count);
    std::vector<float> padded;
    if (width > w) {
      padded = padded_rows(logits, shape.N * classes * h, w, width);
      logits = padded.data();
    }
    const Axis rows(h, static_cast<int>(shape.H), h), columns(w, static_cast<int>(shape.W), width);
    const Phases phases(columns, lanes.count);
    const std::int64_t plane = static_cast<std::int64_t>(h) * width;
    const UpsampleArgmaxPlan plan = {classes,
                                     width,
                                     static_cast<std::ptrdiff_t>(plane),
                                     rows.view(),
                                     columns.view(),
                                     rows.low.data(),
                                     rows.high.data(),
                                     phases.count,
                                     phases.uniform,
                                     phases.low.data(),
                                     phases.high.data()};

    const int band = band_rows(h, shape.N, num_threads);
    const std::int64_t bands = (h + band - 1) / band;
    std::atomic<bool> out_of_memory{false};
    parallel_for(shape.N * bands, [&](std::int64_t task) {
      const std::int64_t n = task / bands;
      const int first = static_cast<int>(task % bands) * band, last = std::min(first + band, h);
      const BandMemory memory(classes, width, lanes.count, phases);
      if (!memory.words) {
        out_of_memory = true;
        return;
      }
      lanes.band(plan, logits + n * classes * plane, labels + n * shape.H * shape.W, first, last, memory.scratch);
    });
    return !out_of_memory;
  } catch (const std::bad_alloc&) {
    return false;
  }
}

}  // namespace edgeseg
