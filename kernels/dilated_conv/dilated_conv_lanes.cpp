// The vector code of dilated_conv, compiled once per instruction set with its own EDGESEG_LANES and
// EDGESEG_LANES_NAMESPACE: one task. The specification is dilated_conv.h.
//
// float32 and int8 share everything but how operands are widened and multiplied: in all, a word of 4 bytes of x (one
// float, two int16 or four bytes of neighbouring channels) meets a vector of such words of the weight (one per output).
#include "dilated_conv/dilated_conv_lanes.h"

#include "common/lanes.h"

namespace edgeseg {
namespace {

constexpr int kRegisterRows = EDGESEG_LANES == 16 ? 12 : 6;  // pixels in registers: 16 or 32 registers in all
constexpr int kColumns = 2 * kLanes;                         // outputs in registers
static_assert(kConvRows % kRegisterRows == 0 && kConvOutputs % kColumns == 0, "whole register tiles");

// Per lane: the sum of the products of two int16.
EDGESEG_INLINE Ints multiply_pairs(Ints a, Ints b) {
#if defined(__AVX512BW__) && EDGESEG_LANES == 16
  return (Ints)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif defined(__AVX2__) && EDGESEG_LANES == 8
  return (Ints)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#elif defined(__SSE2__) && EDGESEG_LANES == 4
  return (Ints)_mm_madd_epi16((__m128i)a, (__m128i)b);
#else
  const Ints low_a = (Ints)((Words)a << 16) >> 16, low_b = (Ints)((Words)b << 16) >> 16;
  return low_a * low_b + (a >> 16) * (b >> 16);
#endif
}

struct Float32 {
  using Element = float;
  using Word = float;
  using Sums = Floats;
  static constexpr int kPerWord = 1;

  EDGESEG_INLINE Sums add_product(Sums sums, Word x, Sums weight) { return sums + broadcast(x) * weight; }
  EDGESEG_INLINE Sums start(const std::int32_t*) { return Sums{}; }
  EDGESEG_INLINE Floats value(Sums sums) { return sums; }

  EDGESEG_INLINE void copy_row(const float* from, int count, std::uint32_t* to) {
    int i = 0;
    for (; i + kLanes <= count; i += kLanes) store(to + i, load<Floats>(from + i));
    for (; i < count; ++i) std::memcpy(to + i, from + i, sizeof(float));
  }
  // One row of the weight to the kColumns words of each group of outputs, `stride` words apart.
  EDGESEG_INLINE void copy_weight(const float* from, std::ptrdiff_t, int, int outputs, std::uint32_t* to,
                                  std::ptrdiff_t stride, std::int32_t*) {
    for (; outputs >= kColumns; outputs -= kColumns, from += kColumns, to += stride) {
      store(to, load<Floats>(from));
      store(to + kLanes, load<Floats>(from + kLanes));
    }
    if (outputs == 0) return;
    std::memset(to, 0, kColumns * sizeof(float));
    std::memcpy(to, from, static_cast<std::size_t>(outputs) * sizeof(float));
  }
};

// In pairs widened to int16, for pmaddwd: twice float32's rate, on any machine.
struct Int8 {
  using Element = std::int8_t;
  using Word = std::int32_t;
  using Sums = Ints;
  static constexpr int kPerWord = 2;

  EDGESEG_INLINE Sums add_product(Sums sums, Word x, Sums weight) {
    return sums + multiply_pairs(broadcast(x), weight);
  }
  EDGESEG_INLINE Sums start(const std::int32_t*) { return Sums{}; }
  EDGESEG_INLINE Floats value(Sums sums) { return __builtin_convertvector(sums, Floats); }

  EDGESEG_INLINE void copy_row(const std::int8_t* from, int count, std::uint32_t* to) {
    std::int16_t* wide = reinterpret_cast<std::int16_t*>(to);
    for (int i = 0; i < count; ++i) wide[i] = from[i];
    if (count % 2 != 0) wide[count] = 0;
  }
  // Two rows of the weight (one and zeros where `rows` is 1), interleaved.
  EDGESEG_INLINE void copy_weight(const std::int8_t* from, std::ptrdiff_t row, int rows, int outputs, std::uint32_t* to,
                                  std::ptrdiff_t stride, std::int32_t*) {
    for (; outputs > 0; outputs -= kColumns, from += kColumns, to += stride) {
      std::int16_t* wide = reinterpret_cast<std::int16_t*>(to);
      if (outputs >= kColumns && rows == 2) {
        for (int o = 0; o < kColumns; ++o) {
          wide[2 * o] = from[o];
          wide[2 * o + 1] = from[row + o];
        }
      } else {
        for (int o = 0; o < kColumns; ++o) {
          wide[2 * o] = o < outputs ? from[o] : 0;
          wide[2 * o + 1] = o < outputs && rows == 2 ? from[row + o] : 0;
        }
      }
    }
  }
};

#if EDGESEG_LANES == 16
// Per lane: sum + the products of four unsigned bytes of a and four signed ones of b, modulo 2^32.
[[maybe_unused]] EDGESEG_INLINE Ints add_quad_products(Ints sum, Ints a, Ints b) {
  Words total = (Words)sum;
  for (int shift = 0; shift < 32; shift += 8) {
    total += ((Words)a >> shift & 0xff) * (Words)((Ints)((Words)b << (24 - shift)) >> 24);
  }
  return (Ints)total;
}

// In fours, for AVX-512 VNNI's vpdpbusd: four times float32's rate. It takes x unsigned, so x is moved up by 128, and
// every block's sums begin at -128 times the sum of the block's weights.
struct Int8Quads {
  using Element = std::int8_t;
  using Word = std::int32_t;
  using Sums = Ints;
  static constexpr int kPerWord = 4;

  EDGESEG_INLINE Sums add_product(Sums sums, Word x, Sums weight) {
#if defined(__AVX512BW__)
    // As assembly: the file is compiled for machines without VNNI too, on which this is not called.
    asm("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(broadcast(x)), "v"(weight));
    return sums;
#else
    return add_quad_products(sums, broadcast(x), weight);
#endif
  }
  EDGESEG_INLINE Sums start(const std::int32_t* corrections) { return load<Ints>(corrections); }
  EDGESEG_INLINE Floats value(Sums sums) { return __builtin_convertvector(sums, Floats); }

  EDGESEG_INLINE void copy_row(const std::int8_t* from, int count, std::uint32_t* to) {
    std::uint8_t* moved = reinterpret_cast<std::uint8_t*>(to);
    for (int i = 0; i < count; ++i) moved[i] = static_cast<std::uint8_t>(from[i] + 128);
    for (int i = count; i % kPerWord != 0; ++i) moved[i] = 0;
  }
  EDGESEG_INLINE void copy_weight(const std::int8_t* from, std::ptrdiff_t row, int rows, int outputs, std::uint32_t* to,
                                  std::ptrdiff_t stride, std::int32_t* corrections) {
    for (; outputs > 0; outputs -= kColumns, from += kColumns, to += stride, corrections += kColumns) {
      std::int8_t* quads = reinterpret_cast<std::int8_t*>(to);
      const bool whole = outputs >= kColumns && rows == kPerWord;
      for (int o = 0; whole && o < kColumns; ++o) {
        for (int r = 0; r < kPerWord; ++r) quads[kPerWord * o + r] = from[r * row + o];
      }
      for (int i = 0; !whole && i < kPerWord * kColumns; ++i) {
        const int o = i / kPerWord, r = i % kPerWord;
        quads[i] = o < outputs && r < rows ? from[r * row + o] : 0;
      }
      for (int o = 0; o < kColumns; ++o) {
        for (int r = 0; r < kPerWord; ++r) corrections[o] -= 128 * quads[kPerWord * o + r];
      }
    }
  }
};
#endif

struct Stage {
  bool first, last;                 // of the task's: nothing was summed before; sums end as values
  int depth;                        // words
  const std::int32_t* corrections;  // of this column of outputs: what sums begin at, besides
};

EDGESEG_INLINE Floats load_or(const float* from, float otherwise) {
  return from == nullptr ? broadcast(otherwise) : load<Floats>(from);
}

// kRegisterRows pixels times kColumns outputs. y holds the sums between stages, whatever their type.
template <typename Type>
EDGESEG_INLINE void register_tile(const std::uint32_t* x, const std::uint32_t* weight, float* y, std::ptrdiff_t pitch,
                                  const Stage& stage, const float* bias, const float* scale, float low, float high) {
  using Sums = typename Type::Sums;
  using Word = typename Type::Word;
  Sums sums[kRegisterRows][2];
  for (int row = 0; row < kRegisterRows; ++row) {
    for (int half = 0; half < 2; ++half) {
      sums[row][half] = Type::start(stage.corrections + half * kLanes);
      if (!stage.first) sums[row][half] += load<Sums>(y + row * pitch + half * kLanes);
    }
  }
  for (int k = 0; k < stage.depth; ++k) {
    const Sums left = load<Sums>(weight + k * kColumns), right = load<Sums>(weight + k * kColumns + kLanes);
#pragma GCC unroll 12
    for (int row = 0; row < kRegisterRows; ++row) {
      Word word;
      std::memcpy(&word, x + row * kConvRowPitch + k, sizeof(Word));
      sums[row][0] = Type::add_product(sums[row][0], word, left);
      sums[row][1] = Type::add_product(sums[row][1], word, right);
    }
  }
  for (int half = 0; half < 2; ++half) {
    const Floats factor = load_or(scale == nullptr ? nullptr : scale + half * kLanes, 1.0f);
    const Floats shift = load_or(bias == nullptr ? nullptr : bias + half * kLanes, 0.0f);
    for (int row = 0; row < kRegisterRows; ++row) {
      float* to = y + row * pitch + half * kLanes;
      if (!stage.last) {
        store(to, sums[row][half]);
        continue;
      }
      Floats value = Type::value(sums[row][half]) * factor + shift;
      value = value < broadcast(low) ? broadcast(low) : value;  // NaN compares with nothing and stays
      store(to, value > broadcast(high) ? broadcast(high) : value);
    }
  }
}

// A register tile whose pixels do not follow each other in y, or that has fewer pixels or outputs.
template <typename Type>
EDGESEG_INLINE void scattered_tile(const ConvTask& task, const std::uint32_t* x, const std::uint32_t* weight, int row,
                                   int column, const Stage& stage) {
  alignas(64) float tile[kRegisterRows * kColumns];
  alignas(64) float bias[kColumns] = {}, scale[kColumns];
  const int rows = task.rows - row < kRegisterRows ? task.rows - row : kRegisterRows;
  const int columns = task.outputs - column < kColumns ? task.outputs - column : kColumns;
  const std::size_t bytes = static_cast<std::size_t>(columns) * sizeof(float);
  float* to[kRegisterRows];
  for (int i = 0; i < rows; ++i) to[i] = task.y + task.pixels[row + i] * task.y_pitch + column;
  if (stage.last) {
    for (int o = 0; o < kColumns; ++o) scale[o] = o < columns && task.scale != nullptr ? task.scale[column + o] : 1.0f;
    if (task.bias != nullptr) std::memcpy(bias, task.bias + column, bytes);
  }
  if (!stage.first) {
    for (int i = 0; i < rows; ++i) std::memcpy(tile + i * kColumns, to[i], bytes);
  }
  register_tile<Type>(x, weight, tile, kColumns, stage, bias, scale, task.low, task.high);
  for (int i = 0; i < rows; ++i) std::memcpy(to[i], tile + i * kColumns, bytes);
}

// A task is a walk over blocks: each tap's channels, kConvDepth words at a time.
template <typename Type>
struct Block {
  using Element = typename Type::Element;
  static constexpr int kChannels = kConvDepth * Type::kPerWord;
  const Element* x;       // of the task's pixel 0 in the image, moved by the tap, at the first channel
  const Element* weight;  // (channels, O)
  int channels;

  // Block `index` in [0, taps * ceil(C / kChannels)).
  Block(const ConvTask& task, int index) {
    const int along_channels = (task.C + kChannels - 1) / kChannels,
              columns = task.last_column_tap - task.first_column_tap;
    const int tap = index / along_channels, c = index % along_channels * kChannels, radius = task.kernel / 2;
    const int v = task.first_row_tap + tap / columns, u = task.first_column_tap + tap % columns;
    const std::ptrdiff_t shift = ((v - radius) * task.width + (u - radius)) * task.dilation;
    x = static_cast<const Element*>(task.x) + shift * task.x_pitch + c;
    weight = static_cast<const Element*>(task.weight) +
             (static_cast<std::ptrdiff_t>(v * task.kernel + u) * task.C + c) * task.O;
    channels = task.C - c < kChannels ? task.C - c : kChannels;
  }

  // Brings into the cache what the copies of this block will read, the step-th of `steps` parts of it: while the block
  // before it is multiplied, since the copies' rows lie too far apart for the machine to foresee.
  EDGESEG_INLINE void prefetch(const ConvTask& task, const Block& block, int step, int steps) {
    for (int row = step * task.rows / steps; row < (step + 1) * task.rows / steps; ++row) {
      prefetch_row(block.x + task.pixels[row] * task.x_pitch, block.channels);
    }
    for (int c = step * block.channels / steps; c < (step + 1) * block.channels / steps; ++c) {
      prefetch_row(block.weight + static_cast<std::ptrdiff_t>(c) * task.O, task.outputs);
    }
  }
  EDGESEG_INLINE void prefetch_row(const Element* row, int count) {
    for (int i = 0; i < count; i += 64 / static_cast<int>(sizeof(Element))) __builtin_prefetch(row + i, 0, 2);
  }
};

template <typename Type>
EDGESEG_INLINE void run(const ConvTask& task, const ConvScratch& scratch) {
  constexpr int kChannels = Block<Type>::kChannels;
  const std::ptrdiff_t group = kConvDepth * kColumns + 16;  // words of kColumns outputs; 16 as in kConvRowPitch
  const int taps = (task.last_row_tap - task.first_row_tap) * (task.last_column_tap - task.first_column_tap);
  const int blocks = taps * ((task.C + kChannels - 1) / kChannels);
  const int steps = (task.outputs + kColumns - 1) / kColumns * ((task.rows + kRegisterRows - 1) / kRegisterRows);
  for (int index = 0; index < blocks; ++index) {
    const Block<Type> block(task, index), next(task, index + 1 < blocks ? index + 1 : index);
    Stage stage = {index == 0, index + 1 == blocks, (block.channels + Type::kPerWord - 1) / Type::kPerWord, nullptr};
    alignas(64) std::int32_t corrections[kConvOutputs] = {};
    for (int row = 0; row < task.rows; ++row) {
      Type::copy_row(block.x + task.pixels[row] * task.x_pitch, block.channels, scratch.x + row * kConvRowPitch);
    }
    for (int k = 0; k < stage.depth; ++k) {
      const int channel = k * Type::kPerWord, left = block.channels - channel;
      const int rows = left < Type::kPerWord ? left : Type::kPerWord;
      Type::copy_weight(block.weight + static_cast<std::ptrdiff_t>(channel) * task.O, task.O, rows, task.outputs,
                        scratch.weight + k * kColumns, group, corrections);
    }
    int step = 0;
    for (int column = 0; column < task.outputs; column += kColumns) {
      const std::uint32_t* weight = scratch.weight + column / kColumns * group;
      stage.corrections = corrections + column;
      for (int row = 0; row < task.rows; row += kRegisterRows, ++step) {
        if (!stage.last) Block<Type>::prefetch(task, next, step, steps);
        const std::uint32_t* words = scratch.x + row * kConvRowPitch;
        const bool side_by_side = row + kRegisterRows <= task.rows && column + kColumns <= task.outputs &&
                                  task.pixels[row + kRegisterRows - 1] - task.pixels[row] == kRegisterRows - 1;
        if (side_by_side) {
          register_tile<Type>(words, weight, task.y + task.pixels[row] * task.y_pitch + column, task.y_pitch, stage,
                              task.bias == nullptr ? nullptr : task.bias + column,
                              task.scale == nullptr ? nullptr : task.scale + column, task.low, task.high);
        } else {
          scattered_tile<Type>(task, words, weight, row, column, stage);
        }
      }
    }
  }
}

// One copy each, whatever the callers.
__attribute__((noinline)) void run_float32(const ConvTask& task, const ConvScratch& scratch) {
  run<Float32>(task, scratch);
}
#if EDGESEG_LANES == 16
__attribute__((noinline)) void run_int8_quads(const ConvTask& task, const ConvScratch& scratch) {
  run<Int8Quads>(task, scratch);
}
#endif
__attribute__((noinline)) void run_int8_pairs(const ConvTask& task, const ConvScratch& scratch) {
  run<Int8>(task, scratch);
}

}  // namespace

namespace EDGESEG_LANES_NAMESPACE {

void conv_task(const ConvTask& task, const ConvScratch& scratch) {
  if (!task.int8) return run_float32(task, scratch);
#if EDGESEG_LANES == 16
  if (task.vnni) return run_int8_quads(task, scratch);
#endif
  run_int8_pairs(task, scratch);
}

}  // namespace EDGESEG_LANES_NAMESPACE
}  // namespace edgeseg
