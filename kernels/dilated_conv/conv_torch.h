// What the torch bindings of dilated_conv and aspp share: tensors as a job, checked and run.
#pragma once

#include <limits>
#include <vector>

#include "common/torch_op.h"
#include "dilated_conv/dilated_conv.h"

namespace edgeseg {

// Tensors of one call, kept alive while it runs. Layouts as in dilated_conv.h; the last weight is the pooled branch's
// where `pool`. No biases (scales) at all counts as none for any branch.
class TorchConv {
 public:
  TorchConv(const Tensor& x, const std::vector<Tensor>& weights, const std::vector<Tensor>& biases,
            const std::vector<Tensor>& scales, const std::vector<int64_t>& dilations, bool pool, double low,
            double high, ScalarType dtype, bool cuda) {
    STD_TORCH_CHECK(x.dim() == 4, "x must be (N, H, W, C), got ", x.dim(), " dimensions");
    const bool int8 = x.scalar_type() == ScalarType::Char;
    const bool half = dtype == ScalarType::Half;
    STD_TORCH_CHECK(half || dtype == ScalarType::Float, "the result must be float32 or float16");
    STD_TORCH_CHECK(cuda || !half, "on CPU the result is float32");
    STD_TORCH_CHECK(int8 || x.scalar_type() == dtype, "x must be int8 or of the result's type");
    const std::size_t parts = weights.size(), branches = parts - (pool ? 1 : 0);
    STD_TORCH_CHECK(parts > (pool ? 1u : 0u) && branches <= kMaxConvBranches, "1 to 7 branches, got ", parts);
    STD_TORCH_CHECK(dilations.size() == branches, "one dilation for each branch");
    STD_TORCH_CHECK(biases.empty() || biases.size() == parts, "one bias for each weight, or none at all");
    STD_TORCH_CHECK(scales.size() == (int8 ? parts : 0), "one scale for each weight with int8, none without");

    const int64_t C = x.size(3), O = weights[0].dim() == 4 ? weights[0].size(cuda ? 2 : 3) : 0;
    job_ = {x.size(0),
            x.size(1),
            x.size(2),
            C,
            O,
            C,
            static_cast<int64_t>(parts) * O,
            nullptr,
            nullptr,
            int8,
            half ? Element::kF16 : Element::kF32,
            static_cast<float>(low),
            static_cast<float>(high),
            static_cast<int>(branches),
            {},
            pool,
            {}};
    for (std::size_t i = 0; i < parts; ++i) {
      const Tensor& weight = weights[i];
      STD_TORCH_CHECK(weight.dim() == 4 && weight.size(0) == weight.size(1) && weight.size(cuda ? 3 : 2) == C &&
                          weight.size(cuda ? 2 : 3) == O && weight.scalar_type() == x.scalar_type(),
                      "weights must be (k, k, ", cuda ? "O, C" : "C, O", "), of x's type and channels, with one O");
      STD_TORCH_CHECK(i < branches || weight.size(0) == 1, "the pooled branch's weight must be 1x1");
      ConvBranch& branch = i < branches ? job_.branch[i] : job_.pool;
      branch.weight = keep(weight);
      branch.bias = biases.empty() ? nullptr : vector_of(biases[i], O);
      branch.scale = int8 ? vector_of(scales[i], O) : nullptr;
      branch.kernel = static_cast<int>(weight.size(0));
      const int64_t dilation = i < branches ? dilations[i] : 1;
      STD_TORCH_CHECK(dilation >= 1 && dilation <= std::numeric_limits<int>::max(), "a dilation below 1");
      branch.dilation = static_cast<int>(dilation);
    }
    const char* fault = conv_fault(job_);
    STD_TORCH_CHECK(fault == nullptr, "cannot take ", fault == nullptr ? "" : fault);
    job_.x = keep(x);
    kept_.push_back(torch::stable::new_empty(x, {job_.N, job_.H, job_.W, job_.y_pitch}, dtype));
    job_.y = kept_.back().mutable_data_ptr();
  }

  const ConvJob& job() const { return job_; }
  const Tensor& y() const { return kept_.back(); }

 private:
  const void* keep(const Tensor& tensor) {
    kept_.push_back(torch::stable::contiguous(tensor));
    return kept_.back().const_data_ptr();
  }
  const float* vector_of(const Tensor& tensor, int64_t length) {
    STD_TORCH_CHECK(tensor.dim() == 1 && tensor.size(0) == length && tensor.scalar_type() == ScalarType::Float,
                    "biases and scales must be (O) float32");
    return static_cast<const float*>(keep(tensor));
  }

  ConvJob job_;
  std::vector<Tensor> kept_;
};

inline Tensor run_torch_conv_cpu(const TorchConv& call, int64_t threads) {
  const int number = torch_threads(threads);
  STD_TORCH_CHECK(conv_cpu(call.job(), InstructionSet::kAutomatic, number, torch_parallel_for(threads)),
                  "out of memory");
  return call.y();
}

#if defined(EDGESEG_CUDA)
inline Tensor run_torch_conv_cuda(const TorchConv& call, const Tensor& x) {
  const Tensor workspace = torch::stable::new_empty(x, {conv_cuda_workspace(call.job())}, ScalarType::Byte);
  const int error = conv_cuda(call.job(), workspace.mutable_data_ptr(), current_cuda_stream(x));
  STD_TORCH_CHECK(error == 0, "CUDA error ", error);
  return call.y();
}
#endif

}  // namespace edgeseg
