// torch.ops.edgeseg.aspp. The schema, the fake and the reference are in edgeseg/ops/_torch_aspp.py.
#include "aspp/aspp.h"
#include "dilated_conv/conv_torch.h"

namespace edgeseg {
namespace {

// edgeseg::aspp(Tensor x, Tensor[] weights, Tensor[] biases, Tensor[] scales, int[] dilations, bool pool, float low,
//               float high, ScalarType dtype, int threads) -> Tensor
Tensor on_cpu(const Tensor& x, std::vector<Tensor> weights, std::vector<Tensor> biases, std::vector<Tensor> scales,
              std::vector<int64_t> dilations, bool pool, double low, double high, ScalarType dtype, int64_t threads) {
  const TorchConv call(x, weights, biases, scales, dilations, pool, low, high, dtype, false);
  return run_torch_conv_cpu(call, threads);
}

#if defined(EDGESEG_CUDA)
Tensor on_cuda(const Tensor& x, std::vector<Tensor> weights, std::vector<Tensor> biases, std::vector<Tensor> scales,
               std::vector<int64_t> dilations, bool pool, double low, double high, ScalarType dtype, int64_t) {
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  return run_torch_conv_cuda({x, weights, biases, scales, dilations, pool, low, high, dtype, true}, x);
}
#endif

}  // namespace
}  // namespace edgeseg

STABLE_TORCH_LIBRARY_IMPL(edgeseg, CPU, m) { m.impl("aspp", TORCH_BOX(&edgeseg::on_cpu)); }
#if defined(EDGESEG_CUDA)
STABLE_TORCH_LIBRARY_IMPL(edgeseg, CUDA, m) { m.impl("aspp", TORCH_BOX(&edgeseg::on_cuda)); }
#endif
