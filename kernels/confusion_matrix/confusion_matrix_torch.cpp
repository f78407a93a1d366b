// torch.ops.edgeseg.confusion_matrix. Schema, fake and reference: edgeseg/ops/_torch_confusion_matrix.py.
#include "common/torch_op.h"
#include "confusion_matrix/confusion_matrix.h"

namespace edgeseg {
namespace {

struct Call {
  Tensor labels, target, counts;  // kept alive while in use
  ConfusionMatrix matrix;
};

Call call_of(const Tensor& labels, const Tensor& target, int64_t num_classes, int64_t ignore_index) {
  STD_TORCH_CHECK(num_classes >= 1 && num_classes <= 255, "num_classes must be 1 to 255, got ", num_classes);
  STD_TORCH_CHECK(ignore_index >= 0 && ignore_index <= 255, "ignore_index must be 0 to 255, got ", ignore_index);
  const ScalarType type = labels.scalar_type();
  STD_TORCH_CHECK(type == target.scalar_type() && (type == ScalarType::Byte || type == ScalarType::Int),
                  "labels and target must both be uint8 or both int32");
  STD_TORCH_CHECK(labels.dim() == target.dim(), "labels and target must have one shape");
  for (int64_t d = 0; d < labels.dim(); ++d) {
    STD_TORCH_CHECK(labels.size(d) == target.size(d), "labels and target must have one shape");
  }
  STD_TORCH_CHECK(labels.get_device() == target.get_device() && labels.is_cuda() == target.is_cuda(),
                  "labels and target must be on one device");
  Call call = {torch::stable::contiguous(labels),
               torch::stable::contiguous(target),
               torch::stable::new_empty(labels, {num_classes + 1, num_classes + 1}, ScalarType::Long),
               {}};
  call.matrix = {call.labels.const_data_ptr(),
                 call.target.const_data_ptr(),
                 type == ScalarType::Byte ? IdType::kU8 : IdType::kI32,
                 labels.numel(),
                 num_classes,
                 static_cast<int>(ignore_index),
                 static_cast<std::int64_t*>(call.counts.mutable_data_ptr())};
  return call;
}

// edgeseg::confusion_matrix(Tensor labels, Tensor target, int num_classes, int ignore_index=255, int threads=0) ->
// Tensor
Tensor confusion_matrix(const Tensor& labels, const Tensor& target, int64_t num_classes, int64_t ignore_index,
                        int64_t threads) {
  const Call call = call_of(labels, target, num_classes, ignore_index);
  const bool done = confusion_matrix_cpu(call.matrix, torch_threads(threads), torch_parallel_for(threads));
  STD_TORCH_CHECK(done, "confusion_matrix: out of memory");
  return call.counts;
}

#if defined(EDGESEG_CUDA)
Tensor confusion_matrix_on_cuda(const Tensor& labels, const Tensor& target, int64_t num_classes, int64_t ignore_index,
                                int64_t) {
  const torch::stable::accelerator::DeviceGuard guard(labels.get_device_index());
  const Call call = call_of(labels, target, num_classes, ignore_index);
  const int error = confusion_matrix_cuda(call.matrix, current_cuda_stream(labels));
  STD_TORCH_CHECK(error == 0, "confusion_matrix: CUDA error ", error);
  return call.counts;
}
#endif

}  // namespace
}  // namespace edgeseg

STABLE_TORCH_LIBRARY_IMPL(edgeseg, CPU, m) { m.impl("confusion_matrix", TORCH_BOX(&edgeseg::confusion_matrix)); }
#if defined(EDGESEG_CUDA)
STABLE_TORCH_LIBRARY_IMPL(edgeseg, CUDA, m) {
  m.impl("confusion_matrix", TORCH_BOX(&edgeseg::confusion_matrix_on_cuda));
}
#endif
