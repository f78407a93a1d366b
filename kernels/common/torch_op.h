// What the ops' torch bindings have in common, on LibTorch's stable ABI: element types, threads, the CUDA stream.
#pragma once

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include "common/element.h"
#include "common/thread_pool.h"

// Exported by libtorch_cuda alone, so it is null in a torch without CUDA; no header of the stable ABI declares it there.
extern "C" __attribute__((weak)) AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device, void** stream);

namespace edgeseg {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline bool is_float(ScalarType type) {
  return type == ScalarType::Float || type == ScalarType::Half || type == ScalarType::BFloat16;
}

// Of a tensor that is_float.
inline Element element_of(const Tensor& tensor) {
  const ScalarType type = tensor.scalar_type();
  return type == ScalarType::Float ? Element::kF32 : type == ScalarType::Half ? Element::kF16 : Element::kBf16;
}

inline int torch_threads(int64_t threads) {
  STD_TORCH_CHECK(threads >= 0 && threads <= 1024, "threads must be in [0, 1024], got ", threads);
  return static_cast<int>(threads > 0 ? threads : torch::stable::get_num_threads());
}

// threads = 0: torch's own threads; otherwise so many of this library's pool.
inline ParallelFor torch_parallel_for(int64_t threads) {
  return [threads](int64_t count, const std::function<void(int64_t)>& body) {
    if (threads > 0) return run_in_pool(static_cast<int>(threads), count, body);
    torch::stable::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) body(i);
    });
  };
}

// Torch's current stream of the tensor's device.
inline void* current_cuda_stream(const Tensor& tensor) {
  void* stream = nullptr;
  STD_TORCH_CHECK(aoti_torch_get_current_cuda_stream != nullptr, "this torch has no CUDA");
  STD_TORCH_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream) == AOTI_TORCH_SUCCESS,
                  "torch gave no CUDA stream for device ", tensor.get_device_index());
  return stream;
}

}  // namespace edgeseg
