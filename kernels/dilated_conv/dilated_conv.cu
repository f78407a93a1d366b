// dilated_conv and aspp on CUDA: one kernel over a list of items, longest first. The specification is dilated_conv.h.
//
// An item is a tile of 128 pixels of one zone (of all images together: zones of a batch fill tiles) times 128 outputs,
// summed over the zone's taps and the channels in slices of 64 bytes, three slices in flight (cp.async). In a zone
// every tap of every pixel is inside the map, so a tap is one added offset and there is nothing to mask. float16 and
// int8 run on tensor cores (mma.sync: the same code from sm_75 to sm_120), float32 on ordinary ones.
//   Split sums  where a GPU would wait for a few long items, their sums are split among several; each leaves its part
//   in
//               the workspace and the last to arrive adds the parts in their order: the result does not depend on
//               chance.
//   Pool        the first items average x, 64 channels each; later ones wait for the averages of their image, make 16
//               outputs and fill the map with them. Items are taken by ticket, so whoever is waited for is running.
// An H200 runs float16 at 15 % of its matrix product's speed at best: wgmma and TMA (sm_90a), and tiles that small zones
// fill, are what is left to gain.
#include "dilated_conv/conv_tile.h"

namespace edgeseg {
namespace {

template <typename T>
__device__ __forceinline__ float to_float(T value) {
  return static_cast<float>(value);
}

__device__ __forceinline__ void store(const ConvPlan& plan, std::int64_t at, float value) {
  value = value < plan.low ? plan.low : value;  // NaN compares with nothing and stays
  value = value > plan.high ? plan.high : value;
  if (plan.half) {
    static_cast<__half*>(plan.y)[at] = __float2half_rn(value);
  } else {
    static_cast<float*>(plan.y)[at] = value;
  }
}

// True in every thread of the block that is the last of `count` to call this for the counter. What the others wrote
// before calling it is then visible.
__device__ __forceinline__ bool last_to_arrive(int* counter, int count) {
  __shared__ int before;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) before = atomicAdd(counter, 1);
  __syncthreads();
  const bool last = before == count - 1;
  __syncthreads();  // before the next write to `before`
  __threadfence();
  return last;
}

template <typename Tile>
__device__ void run_tile(const ConvPlan& plan, const ConvEntry& entry, int local, char* shared) {
  using Sum = typename Tile::Sum;
  // local = ((pixel tile) * splits + split) * output tiles + output tile: neighbours share x, which is then in L2
  const int output_tile = local % plan.output_tiles, split = local / plan.output_tiles % entry.splits;
  const int pixel_tile = local / plan.output_tiles / entry.splits;
  const int area = entry.height * entry.width;
  const int pixels = min(kConvTile, plan.N * area - pixel_tile * kConvTile);
  const int outputs = min(kConvTile, plan.O - output_tile * kConvTile);
  const int all_slices = entry.taps * plan.slices;
  const int first = static_cast<int>(static_cast<std::int64_t>(all_slices) * split / entry.splits);
  const int slices = static_cast<int>(static_cast<std::int64_t>(all_slices) * (split + 1) / entry.splits) - first;

  Tile tile;
  tile.clear();
  {
    ConvLoader<typename Tile::Element, Tile::kThreads> loader(plan, entry, pixel_tile, output_tile, first);
    for (int slice = 0; slice < kConvStages - 1; ++slice) {
      if (slice < slices) loader.copy(shared + slice * kConvStageBytes);
      cp_async_commit();
    }
    int stage = 0, filled = kConvStages - 1;  // slice % kConvStages and (slice + kConvStages - 1) % kConvStages
    for (int slice = 0; slice < slices; ++slice) {
      cp_async_wait<kConvStages - 2>();
      __syncthreads();  // this slice is there for all; and all are done with the one whose place is filled next
      if (slice + kConvStages - 1 < slices) loader.copy(shared + filled * kConvStageBytes);
      cp_async_commit();
      tile.multiply(shared + stage * kConvStageBytes, pixels, outputs);
      stage = stage == kConvStages - 1 ? 0 : stage + 1;
      filled = filled == kConvStages - 1 ? 0 : filled + 1;
    }
    cp_async_wait<0>();
  }

  // From here on thread t looks after output t % 128 of the tile and every kAcross-th pixel, so that what a warp stores
  // lies together. Sums come to it through shared memory, 32 pixels at a time.
  constexpr int kAcross = Tile::kThreads / kConvTile, kRound = 32;
  const int within = static_cast<int>(threadIdx.x) % kConvTile, output = output_tile * kConvTile + within;
  Sum* staged = reinterpret_cast<Sum*>(shared);
  std::int64_t* places = reinterpret_cast<std::int64_t*>(shared + kRound * kSumPitch * sizeof(Sum));
  const ConvKernelBranch& branch = plan.branch[entry.branch];
  const bool mine = within < outputs;
  const float factor = mine && branch.scale != nullptr ? branch.scale[output] : 1.0f;
  const float shift = mine && branch.bias != nullptr ? branch.bias[output] : 0.0f;
  const int split_tile = pixel_tile * plan.output_tiles + output_tile;
  Sum* parts = static_cast<Sum*>(plan.partial) +
               (entry.first_partial + static_cast<std::int64_t>(split_tile) * entry.splits) * kConvTile * kConvTile +
               within;

  __syncthreads();                                                          // all are done with the slices
  if (threadIdx.x < kConvTile) {                                            // where in y each pixel of the tile is
    const int at = pixel_tile * kConvTile + static_cast<int>(threadIdx.x);  // (image, y, x) of the zone
    const int image = at / area, y = at % area / entry.width, x = at % area % entry.width;
    places[threadIdx.x] =
        ((static_cast<std::int64_t>(image) * plan.H + entry.y + y) * plan.W + entry.x + x) * plan.y_pitch +
        static_cast<std::int64_t>(entry.branch) * plan.O;
  }
#pragma unroll 1
  for (int round = 0; round * kRound < pixels; ++round) {
    tile.put(round, staged);
    __syncthreads();
    for (int row = static_cast<int>(threadIdx.x) / kConvTile; row < kRound; row += kAcross) {
      const int pixel = round * kRound + row;
      if (!mine || pixel >= pixels) break;
      const Sum sum = staged[row * kSumPitch + within];
      if (entry.splits > 1) {
        parts[(split * kConvTile + pixel) * kConvTile] = sum;
      } else {
        store(plan, places[pixel] + output, to_float(sum) * factor + shift);
      }
    }
    __syncthreads();  // before the next round's sums
  }
  if (entry.splits == 1 || !last_to_arrive(plan.split_done + entry.first_split_tile + split_tile, entry.splits)) return;
  for (int pixel = static_cast<int>(threadIdx.x) / kConvTile; mine && pixel < pixels; pixel += kAcross) {
    Sum sum = 0;
    for (int part = 0; part < entry.splits; ++part) sum += __ldcg(parts + (part * kConvTile + pixel) * kConvTile);
    store(plan, places[pixel] + output, to_float(sum) * factor + shift);
  }
}

// mean[image, c] for kPoolChannels channels. A thread adds 16 bytes of channels over every kGroups-th pixel.
template <typename T, int kThreads>
__device__ void average(const ConvPlan& plan, int item, float* shared) {
  constexpr int kPer = 16 / static_cast<int>(sizeof(T)), kAcross = kPoolChannels / kPer, kGroups = kThreads / kAcross;
  const int items = (plan.C + kPoolChannels - 1) / kPoolChannels, image = item / items,
            first = item % items * kPoolChannels;
  const int thread = static_cast<int>(threadIdx.x), group = thread / kAcross, within = thread % kAcross * kPer;
  const int channels = min(kPer, plan.C - first - within), area = plan.H * plan.W;
  const char* from = plan.x + static_cast<std::int64_t>(image) * area * plan.x_pitch_bytes +
                     static_cast<std::int64_t>(first + within) * static_cast<int>(sizeof(T));
  struct alignas(16) Chunk {
    T value[kPer];
  };
  float sums[kPer] = {};
  if (plan.aligned && channels == kPer) {
#pragma unroll 4
    for (int p = group; p < area; p += kGroups) {
      const Chunk chunk = *reinterpret_cast<const Chunk*>(from + p * plan.x_pitch_bytes);
#pragma unroll
      for (int i = 0; i < kPer; ++i) sums[i] += to_float(chunk.value[i]);
    }
  } else {
    for (int p = group; p < area; p += kGroups) {
#pragma unroll
      for (int i = 0; i < kPer; ++i) {
        if (i < channels) sums[i] += to_float(reinterpret_cast<const T*>(from + p * plan.x_pitch_bytes)[i]);
      }
    }
  }
#pragma unroll
  for (int i = 0; i < kPer; ++i) shared[group * kPoolChannels + within + i] = sums[i];
  __syncthreads();
  if (thread < kPoolChannels && first + thread < plan.C) {
    float sum = 0.0f;
    for (int g = 0; g < kGroups; ++g) sum += shared[g * kPoolChannels + thread];
    plan.mean[static_cast<std::int64_t>(image) * plan.C + first + thread] = sum / static_cast<float>(area);
  }
  __threadfence();
  __syncthreads();
  if (thread == 0) atomicAdd(plan.pool_done + image, 1);
}

// kPoolOutputs outputs of the pooled branch, in every pixel of an image. A warp makes an output at a time.
template <typename T, int kThreads>
__device__ void pooled_branch(const ConvPlan& plan, int local, float* shared) {
  const int items = (plan.O + kPoolOutputs - 1) / kPoolOutputs, image = local / items,
            first = local % items * kPoolOutputs;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, outputs = min(kPoolOutputs, plan.O - first);
  const ConvKernelBranch& branch = plan.branch[plan.branches];
  const float* mean = plan.mean + static_cast<std::int64_t>(image) * plan.C;
  if (thread == 0) {
    while (atomicAdd(plan.pool_done + image, 0) < (plan.C + kPoolChannels - 1) / kPoolChannels) {
    }
    __threadfence();
  }
  __syncthreads();
  for (int o = thread / 32; o < outputs; o += kThreads / 32) {
    const T* weight = reinterpret_cast<const T*>(branch.weight) + static_cast<std::int64_t>(first + o) * plan.C;
    float sum = 0.0f;
#pragma unroll 8
    for (int c = lane; c < plan.C; c += 32) sum += __ldcg(mean + c) * to_float(weight[c]);
    for (int lanes = 16; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(~0u, sum, lanes);
    if (lane == 0) {
      shared[o] = sum * (branch.scale == nullptr ? 1.0f : branch.scale[first + o]) +
                  (branch.bias == nullptr ? 0.0f : branch.bias[first + o]);
    }
  }
  __syncthreads();
  const int output = thread % kPoolOutputs;
  if (output >= outputs) return;
  const float value = shared[output];
  const std::int64_t area = static_cast<std::int64_t>(plan.H) * plan.W;
  for (std::int64_t p = thread / kPoolOutputs; p < area; p += kThreads / kPoolOutputs) {
    store(plan, (image * area + p) * plan.y_pitch + static_cast<std::int64_t>(plan.branches) * plan.O + first + output,
          value);
  }
}

template <typename Tile>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocksPerSm)
    conv_items(const __grid_constant__ ConvPlan plan) {
  using Element = typename Tile::Element;
  __shared__ int taken;
  int item = static_cast<int>(blockIdx.x);
  if (plan.ticket != nullptr) {
    if (threadIdx.x == 0) taken = atomicAdd(plan.ticket, 1);
    __syncthreads();
    item = taken;
  }
  char* shared = dynamic_shared<char>();
  if (item < plan.pool_items) return average<Element, Tile::kThreads>(plan, item, reinterpret_cast<float*>(shared));
  int index = plan.entries - 1;
  while (item < plan.entry[index].first_item) --index;
  const ConvEntry& entry = plan.entry[index];
  const int local = item - entry.first_item;
  if (entry.branch < 0) return pooled_branch<Element, Tile::kThreads>(plan, local, reinterpret_cast<float*>(shared));
  run_tile<Tile>(plan, entry, local, shared);
}

// Blocks that the current device runs at a time: two on each multiprocessor, by __launch_bounds__.
int slots() {
  int device = 0, processors = 1;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
  return 2 * processors;
}

template <typename Tile>
int start(const ConvPlan& plan, void* stream) {
  const Grid grid = {static_cast<unsigned>(plan.items), Tile::kThreads,
                     static_cast<std::size_t>(kConvStages) * kConvStageBytes};
  return launch(grid, stream, conv_items<Tile>, plan);
}

}  // namespace

std::int64_t conv_cuda_workspace(const ConvJob& job) {
  ConvWorkspace needed;
  conv_plan(job, slots(), nullptr, &needed);
  return job.N == 0 ? 0 : needed.bytes();
}

int conv_cuda(const ConvJob& job, void* workspace, void* stream) {
  if (job.N == 0) return cudaSuccess;
  ConvWorkspace needed;
  const ConvPlan plan = conv_plan(job, slots(), workspace, &needed);
  if (needed.bytes() > 0) {
    if (workspace == nullptr) return cudaErrorInvalidValue;
    const cudaError_t error = cudaMemsetAsync(workspace, 0, static_cast<std::size_t>(needed.counter_bytes),
                                              static_cast<cudaStream_t>(stream));
    if (error != cudaSuccess) return error;
  }
  if (job.int8) return start<TensorTile<std::int8_t, int>>(plan, stream);
  return job.element == Element::kF16 ? start<TensorTile<__half, float>>(plan, stream) : start<FloatTile>(plan, stream);
}

}  // namespace edgeseg
