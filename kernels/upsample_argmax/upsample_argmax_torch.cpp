// torch.ops.edgeseg.upsample_argmax. The schema, the fake and the reference are in edgeseg/ops/_torch_upsample_argmax.py.
#include <tuple>

#include "common/torch_op.h"
#include "upsample_argmax/upsample_argmax.h"

namespace edgeseg {
namespace {

// edgeseg::upsample_argmax(Tensor logits, SymInt height, SymInt width, bool align_corners, bool margin, int threads)
//   -> (Tensor, Tensor)    the second is empty unless margin is asked for
struct Call {
  UpsampleArgmaxShape shape;
  Tensor source, labels, margin;

  Call(const Tensor& logits, int64_t height, int64_t width, bool with_margin)
      : shape(checked_shape(logits, height, width)),
        source(torch::stable::contiguous(logits)),
        labels(torch::stable::new_empty(logits, {shape.N, height, width},
                                        shape.C > kMaxClasses ? ScalarType::Int : ScalarType::Byte)),
        margin(with_margin ? torch::stable::new_empty(logits, {shape.N, height, width}, ScalarType::Float)
                           : torch::stable::new_empty(logits, {0}, ScalarType::Float)) {}

  static UpsampleArgmaxShape checked_shape(const Tensor& logits, int64_t height, int64_t width) {
    STD_TORCH_CHECK(logits.dim() == 4, "logits must be (N, C, h, w), got ", logits.dim(), " dimensions");
    STD_TORCH_CHECK(is_float(logits.scalar_type()), "logits must be float32, float16 or bfloat16");
    const UpsampleArgmaxShape shape = {logits.size(0), logits.size(1), logits.size(2), logits.size(3), height, width};
    const char* fault = upsample_argmax_fault(shape);
    STD_TORCH_CHECK(fault == nullptr, "upsample_argmax cannot take ", fault == nullptr ? "" : fault);
    return shape;
  }

  float* margins() const { return margin.dim() == 3 ? static_cast<float*>(margin.mutable_data_ptr()) : nullptr; }
};

std::tuple<Tensor, Tensor> on_cpu(const Tensor& logits, int64_t height, int64_t width, bool align_corners, bool margin,
                                  int64_t threads) {
  const Call call(logits, height, width, margin);
  const bool done = upsample_argmax_cpu(call.source.const_data_ptr(), element_of(logits), call.labels.mutable_data_ptr(),
                                        call.margins(), call.shape, align_corners, InstructionSet::kAutomatic,
                                        torch_threads(threads), torch_parallel_for(threads));
  STD_TORCH_CHECK(done, "upsample_argmax: out of memory");
  return {call.labels, call.margin};
}

#if defined(EDGESEG_CUDA)
std::tuple<Tensor, Tensor> on_cuda(const Tensor& logits, int64_t height, int64_t width, bool align_corners, bool margin,
                                   int64_t) {
  const torch::stable::accelerator::DeviceGuard guard(logits.get_device_index());
  const Call call(logits, height, width, margin);
  const int error =
      upsample_argmax_cuda(call.source.const_data_ptr(), element_of(logits), call.labels.mutable_data_ptr(),
                           call.margins(), call.shape, align_corners, current_cuda_stream(logits));
  STD_TORCH_CHECK(error == 0, "upsample_argmax: CUDA error ", error);
  return {call.labels, call.margin};
}
#endif

}  // namespace
}  // namespace edgeseg

STABLE_TORCH_LIBRARY_IMPL(edgeseg, CPU, m) { m.impl("upsample_argmax", TORCH_BOX(&edgeseg::on_cpu)); }
#if defined(EDGESEG_CUDA)
STABLE_TORCH_LIBRARY_IMPL(edgeseg, CUDA, m) { m.impl("upsample_argmax", TORCH_BOX(&edgeseg::on_cuda)); }
#endif
