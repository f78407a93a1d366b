// torch.ops.edgeseg.upsample_argmax on CPU. The schema, the fake and the reference are in
// edgeseg/ops/_torch_upsample_argmax.py.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include "upsample_argmax/upsample_argmax.h"

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// edgeseg::upsample_argmax(Tensor logits, SymInt height, SymInt width, int threads=0) -> Tensor
// threads = 0: torch's own threads, as many as torch.get_num_threads() says; otherwise so many of this library's pool.
Tensor upsample_argmax(const Tensor& logits, int64_t height, int64_t width, int64_t threads) {
  STD_TORCH_CHECK(logits.dim() == 4, "logits must be (N, C, h, w), got ", logits.dim(), " dimensions");
  const ScalarType dtype = logits.scalar_type();
  STD_TORCH_CHECK(dtype == ScalarType::Float || dtype == ScalarType::Half || dtype == ScalarType::BFloat16,
                  "logits must be float32, float16 or bfloat16");
  const edgeseg::UpsampleArgmaxShape shape = {logits.size(0), logits.size(1), logits.size(2),
                                              logits.size(3), height,         width};
  const char* fault = edgeseg::upsample_argmax_fault(shape);
  STD_TORCH_CHECK(fault == nullptr, "upsample_argmax cannot take ", fault == nullptr ? "" : fault);

  STD_TORCH_CHECK(threads >= 0 && threads <= 1024, "threads must be in [0, 1024], got ", threads);

  const Tensor source =
      torch::stable::contiguous(dtype == ScalarType::Float ? logits : torch::stable::to(logits, ScalarType::Float));
  Tensor labels = torch::stable::new_empty(logits, {shape.N, height, width}, ScalarType::Byte);

  const int num_threads = static_cast<int>(threads > 0 ? threads : torch::stable::get_num_threads());
  const auto parallel_for = [threads](int64_t count, const std::function<void(int64_t)>& body) {
    if (threads > 0) return edgeseg::run_in_pool(static_cast<int>(threads), count, body);
    torch::stable::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) body(i);
    });
  };
  const bool done = edgeseg::upsample_argmax_cpu(static_cast<const float*>(source.const_data_ptr()),
                                                 static_cast<std::uint8_t*>(labels.mutable_data_ptr()), shape,
                                                 edgeseg::InstructionSet::kAutomatic, num_threads, parallel_for);
  STD_TORCH_CHECK(done, "upsample_argmax: out of memory");
  return labels;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(edgeseg, CPU, m) { m.impl("upsample_argmax", TORCH_BOX(&upsample_argmax)); }
