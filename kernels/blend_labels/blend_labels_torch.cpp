// torch.ops.edgeseg.blend_labels and blend_labels_into. Schemas, fakes and references:
// edgeseg/ops/_torch_blend_labels.py.
#include "blend_labels/blend_labels.h"
#include "common/torch_op.h"

namespace edgeseg {
namespace {

// Pixels side by side, three bytes each; rows anywhere.
bool is_dense(const Tensor& image) {
  if (image.numel() == 0) return true;
  return image.size(3) == 3 && image.stride(3) == 1 && (image.size(2) <= 1 || image.stride(2) == 3);
}

struct Call {
  Tensor image, labels, palette;  // kept alive while in use
  BlendLabels blend;
  BlendLabelsShape shape;
};

Call call_of(const Tensor& image, const Tensor& labels, const Tensor& palette, int64_t share, const Tensor& out) {
  for (const Tensor* tensor : {&image, &labels, &palette, &out}) {
    STD_TORCH_CHECK(tensor->scalar_type() == ScalarType::Byte, "image, labels, palette and out must be uint8");
    STD_TORCH_CHECK(tensor->get_device() == image.get_device() && tensor->is_cuda() == image.is_cuda(),
                    "image, labels, palette and out must be on one device");
  }
  STD_TORCH_CHECK(image.dim() == 4 && image.size(3) == 3, "image must be (N, H, W, 3)");
  STD_TORCH_CHECK(labels.dim() == 3 && palette.dim() == 2 && palette.size(1) == 3,
                  "labels must be (N, H, W) and palette (K, 3)");
  for (int64_t d = 0; d < 3; ++d) {
    STD_TORCH_CHECK(labels.size(d) == image.size(d), "labels and image must have one size");
  }
  STD_TORCH_CHECK(out.dim() == 4 && is_dense(out), "out must be (N, H, W, 3) with its pixels side by side");
  for (int64_t d = 0; d < 3; ++d) STD_TORCH_CHECK(out.size(d) == image.size(d), "out and image must have one size");

  const bool rows = labels.size(2) <= 1 || labels.stride(2) == 1;
  Call call = {is_dense(image) ? image : torch::stable::contiguous(image),
               rows ? labels : torch::stable::contiguous(labels),
               torch::stable::contiguous(palette),
               {},
               {}};
  const auto pitch = [](const Tensor& tensor) { return Pitch{tensor.stride(1), tensor.stride(0)}; };
  const auto address = [](const Tensor& tensor) { return static_cast<const std::uint8_t*>(tensor.const_data_ptr()); };
  call.blend = {address(call.image),
                address(call.labels),
                address(call.palette),
                static_cast<std::uint8_t*>(out.mutable_data_ptr()),
                pitch(call.image),
                pitch(call.labels),
                pitch(out),
                static_cast<int>(share < 0     ? -1
                                 : share > 256 ? 257
                                               : share)};
  call.shape = {image.size(0), image.size(1), image.size(2), palette.size(0)};
  const char* fault = blend_labels_fault(call.blend, call.shape);
  STD_TORCH_CHECK(fault == nullptr, "blend_labels cannot take ", fault == nullptr ? "" : fault);
  return call;
}

Tensor new_like(const Tensor& image) {
  STD_TORCH_CHECK(image.dim() == 4, "image must be (N, H, W, 3)");
  return torch::stable::new_empty(image, {image.size(0), image.size(1), image.size(2), image.size(3)});
}

// edgeseg::blend_labels_into(Tensor image, Tensor labels, Tensor palette, int share, Tensor(a!) out, int threads=0) ->
// ()
void blend_labels_into(const Tensor& image, const Tensor& labels, const Tensor& palette, int64_t share, Tensor out,
                       int64_t threads) {
  const Call call = call_of(image, labels, palette, share, out);
  torch_threads(threads);  // checks it
  blend_labels_cpu(call.blend, call.shape, InstructionSet::kAutomatic, torch_parallel_for(threads));
}

// edgeseg::blend_labels(Tensor image, Tensor labels, Tensor palette, int share, int threads=0) -> Tensor
Tensor blend_labels(const Tensor& image, const Tensor& labels, const Tensor& palette, int64_t share, int64_t threads) {
  const Tensor out = new_like(image);
  blend_labels_into(image, labels, palette, share, out, threads);
  return out;
}

#if defined(EDGESEG_CUDA)
void blend_labels_into_on_cuda(const Tensor& image, const Tensor& labels, const Tensor& palette, int64_t share,
                               Tensor out, int64_t) {
  const torch::stable::accelerator::DeviceGuard guard(image.get_device_index());
  const Call call = call_of(image, labels, palette, share, out);
  const int error = blend_labels_cuda(call.blend, call.shape, current_cuda_stream(image));
  STD_TORCH_CHECK(error == 0, "blend_labels: CUDA error ", error);
}

Tensor blend_labels_on_cuda(const Tensor& image, const Tensor& labels, const Tensor& palette, int64_t share,
                            int64_t threads) {
  const torch::stable::accelerator::DeviceGuard guard(image.get_device_index());
  const Tensor out = new_like(image);
  blend_labels_into_on_cuda(image, labels, palette, share, out, threads);
  return out;
}
#endif

}  // namespace
}  // namespace edgeseg

STABLE_TORCH_LIBRARY_IMPL(edgeseg, CPU, m) {
  m.impl("blend_labels", TORCH_BOX(&edgeseg::blend_labels));
  m.impl("blend_labels_into", TORCH_BOX(&edgeseg::blend_labels_into));
}
#if defined(EDGESEG_CUDA)
STABLE_TORCH_LIBRARY_IMPL(edgeseg, CUDA, m) {
  m.impl("blend_labels", TORCH_BOX(&edgeseg::blend_labels_on_cuda));
  m.impl("blend_labels_into", TORCH_BOX(&edgeseg::blend_labels_into_on_cuda));
}
#endif
