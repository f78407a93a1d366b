// torch.ops.edgeseg.dilated_conv. The schema, the fake and the reference are in edgeseg/ops/_torch_dilated_conv.py.
#include <optional>

#include "dilated_conv/conv_torch.h"

namespace edgeseg {
namespace {

std::vector<Tensor> listed(const std::optional<Tensor>& tensor) {
  return tensor.has_value() ? std::vector<Tensor>{*tensor} : std::vector<Tensor>{};
}

// edgeseg::dilated_conv(Tensor x, Tensor weight, Tensor? bias, Tensor? scale, int dilation, float low, float high,
//                       ScalarType dtype, int threads) -> Tensor
Tensor on_cpu(const Tensor& x, const Tensor& weight, std::optional<Tensor> bias, std::optional<Tensor> scale,
              int64_t dilation, double low, double high, ScalarType dtype, int64_t threads) {
  const TorchConv call(x, {weight}, listed(bias), listed(scale), {dilation}, false, low, high, dtype, false);
  return run_torch_conv_cpu(call, threads);
}

#if defined(EDGESEG_CUDA)
Tensor on_cuda(const Tensor& x, const Tensor& weight, std::optional<Tensor> bias, std::optional<Tensor> scale,
               int64_t dilation, double low, double high, ScalarType dtype, int64_t) {
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  return run_torch_conv_cuda({x, {weight}, listed(bias), listed(scale), {dilation}, false, low, high, dtype, true}, x);
}
#endif

}  // namespace
}  // namespace edgeseg

STABLE_TORCH_LIBRARY_IMPL(edgeseg, CPU, m) { m.impl("dilated_conv", TORCH_BOX(&edgeseg::on_cpu)); }
#if defined(EDGESEG_CUDA)
STABLE_TORCH_LIBRARY_IMPL(edgeseg, CUDA, m) { m.impl("dilated_conv", TORCH_BOX(&edgeseg::on_cuda)); }
#endif
