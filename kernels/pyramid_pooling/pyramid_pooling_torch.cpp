// torch.ops.edgeseg.pyramid_pooling. The schema, the fake and the reference are in
// edgeseg/ops/_torch_pyramid_pooling.py.
#include <algorithm>
#include <vector>

#include "common/torch_op.h"
#include "pyramid_pooling/pyramid_pooling.h"

namespace edgeseg {
namespace {

struct Call {
  std::vector<int32_t> bins;
  PyramidPoolingShape shape;  // points into bins
  Tensor x, pooled;
};

Call call_of(const Tensor& given, const std::vector<int64_t>& bins, bool channels_last) {
  STD_TORCH_CHECK(given.dim() == 4, "x must be (N, C, H, W) or, channels last, (N, H, W, C), got ", given.dim(),
                  " dimensions");
  STD_TORCH_CHECK(is_float(given.scalar_type()), "x must be float32, float16 or bfloat16");
  Call call = {{}, {}, torch::stable::contiguous(given), given};
  for (const int64_t b : bins) call.bins.push_back(static_cast<int32_t>(std::clamp<int64_t>(b, 0, kMostBinRows + 1)));
  const int64_t N = given.size(0), C = given.size(channels_last ? 3 : 1);
  const int64_t H = given.size(channels_last ? 1 : 2), W = given.size(channels_last ? 2 : 3);
  call.shape = {N, C, H, W, call.bins.data(), static_cast<int64_t>(bins.size()), channels_last};
  const char* fault = pyramid_pooling_fault(call.shape);
  STD_TORCH_CHECK(fault == nullptr, "pyramid_pooling cannot take ", fault == nullptr ? "" : fault);
  const int64_t positions = pyramid_pooling_positions(call.shape);
  call.pooled = channels_last ? torch::stable::new_empty(given, {N, positions, C})
                              : torch::stable::new_empty(given, {N, C, positions});
  return call;
}

// edgeseg::pyramid_pooling(Tensor x, int[] bins, bool channels_last, int threads=0) -> Tensor
Tensor pyramid_pooling(const Tensor& x, std::vector<int64_t> bins, bool channels_last, int64_t threads) {
  const Call call = call_of(x, bins, channels_last);
  const bool done =
      pyramid_pooling_cpu(call.x.const_data_ptr(), call.pooled.mutable_data_ptr(), element_of(x), call.shape,
                          InstructionSet::kAutomatic, torch_threads(threads), torch_parallel_for(threads));
  STD_TORCH_CHECK(done, "pyramid_pooling: out of memory");
  return call.pooled;
}

#if defined(EDGESEG_CUDA)
Tensor pyramid_pooling_on_cuda(const Tensor& x, std::vector<int64_t> bins, bool channels_last, int64_t) {
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  const Call call = call_of(x, bins, channels_last);
  const Tensor workspace = torch::stable::new_empty(x, {pyramid_pooling_workspace(call.shape)}, ScalarType::Byte);
  const int error =
      pyramid_pooling_cuda(call.x.const_data_ptr(), call.pooled.mutable_data_ptr(), workspace.mutable_data_ptr(),
                           element_of(x), call.shape, current_cuda_stream(x));
  STD_TORCH_CHECK(error == 0, "pyramid_pooling: CUDA error ", error);
  return call.pooled;
}
#endif

}  // namespace
}  // namespace edgeseg

STABLE_TORCH_LIBRARY_IMPL(edgeseg, CPU, m) { m.impl("pyramid_pooling", TORCH_BOX(&edgeseg::pyramid_pooling)); }
#if defined(EDGESEG_CUDA)
STABLE_TORCH_LIBRARY_IMPL(edgeseg, CUDA, m) { m.impl("pyramid_pooling", TORCH_BOX(&edgeseg::pyramid_pooling_on_cuda)); }
#endif
