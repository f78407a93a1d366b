// The C functions of blend_labels; edgeseg_kernels.h says what they take.
#include "blend_labels/blend_labels.h"
#include "common/c_function.h"
#include "edgeseg_kernels.h"

namespace {

bool takes(const edgeseg::BlendLabels& blend, const edgeseg::BlendLabelsShape& shape) {
  if (edgeseg::blend_labels_fault(blend, shape) != nullptr) return false;
  if (shape.K > 0 && blend.palette == nullptr) return false;
  return shape.N * shape.H * shape.W == 0 || (blend.image && blend.labels && blend.out);
}

}  // namespace

extern "C" int32_t edgeseg_blend_labels_u8(const uint8_t* image, int64_t image_row, int64_t image_image,
                                           const uint8_t* labels, int64_t labels_row, int64_t labels_image,
                                           const uint8_t* palette, int64_t K, int32_t share, uint8_t* out,
                                           int64_t out_row, int64_t out_image, int64_t N, int64_t H, int64_t W,
                                           int32_t num_threads, int32_t instruction_set) {
  const edgeseg::BlendLabels blend = {
      image, labels, palette, out, {image_row, image_image}, {labels_row, labels_image}, {out_row, out_image}, share};
  const edgeseg::BlendLabelsShape shape = {N, H, W, K};
  if (!takes(blend, shape) || num_threads < 0) return EDGESEG_INVALID_ARGUMENT;
  const auto set = static_cast<edgeseg::InstructionSet>(instruction_set);
  if (!edgeseg::can_run(set)) return EDGESEG_UNSUPPORTED_INSTRUCTION_SET;
  const double pixels = static_cast<double>(N) * static_cast<double>(H) * static_cast<double>(W);
  const int threads = edgeseg::deserved_threads(num_threads, 2 * pixels);  // counted in words: 7 bytes a pixel
  edgeseg::blend_labels_cpu(blend, shape, set, edgeseg::parallel_in_pool(threads));
  return EDGESEG_OK;
}

extern "C" int32_t edgeseg_blend_labels_u8_cuda(const uint8_t* image, int64_t image_row, int64_t image_image,
                                                const uint8_t* labels, int64_t labels_row, int64_t labels_image,
                                                const uint8_t* palette, int64_t K, int32_t share, uint8_t* out,
                                                int64_t out_row, int64_t out_image, int64_t N, int64_t H, int64_t W,
                                                void* stream) {
  const edgeseg::BlendLabels blend = {
      image, labels, palette, out, {image_row, image_image}, {labels_row, labels_image}, {out_row, out_image}, share};
  const edgeseg::BlendLabelsShape shape = {N, H, W, K};
  if (!takes(blend, shape)) return EDGESEG_INVALID_ARGUMENT;
  (void)stream;  // in a build without CUDA
  return EDGESEG_CUDA_STATUS(edgeseg::blend_labels_cuda(blend, shape, stream));
}
