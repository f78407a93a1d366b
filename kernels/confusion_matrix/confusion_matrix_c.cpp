// The C functions of confusion_matrix; edgeseg_kernels.h says what they take.
#include "common/c_function.h"
#include "confusion_matrix/confusion_matrix.h"
#include "edgeseg_kernels.h"

namespace {

bool takes(const edgeseg::ConfusionMatrix& call, std::int32_t id_type) {
  if (call.count < 0 || call.K < 1 || call.K > 255 || call.ignore_index < 0 || call.ignore_index > 255) return false;
  if (id_type < 0 || id_type > 1 || call.counts == nullptr) return false;
  return call.count == 0 || (call.labels != nullptr && call.target != nullptr);
}

}  // namespace

extern "C" int32_t edgeseg_confusion_matrix(const void* labels, const void* target, int32_t id_type, int64_t count,
                                            int64_t K, int32_t ignore_index, int64_t* counts, int32_t num_threads) {
  const edgeseg::ConfusionMatrix call = {labels,       target, static_cast<edgeseg::IdType>(id_type), count, K,
                                         ignore_index, counts};
  if (!takes(call, id_type) || num_threads < 0) return EDGESEG_INVALID_ARGUMENT;
  const int threads = edgeseg::deserved_threads(num_threads, static_cast<double>(count));
  const bool done = edgeseg::confusion_matrix_cpu(call, threads, edgeseg::parallel_in_pool(threads));
  return done ? EDGESEG_OK : EDGESEG_OUT_OF_MEMORY;
}

extern "C" int32_t edgeseg_confusion_matrix_cuda(const void* labels, const void* target, int32_t id_type, int64_t count,
                                                 int64_t K, int32_t ignore_index, int64_t* counts, void* stream) {
  const edgeseg::ConfusionMatrix call = {labels,       target, static_cast<edgeseg::IdType>(id_type), count, K,
                                         ignore_index, counts};
  if (!takes(call, id_type)) return EDGESEG_INVALID_ARGUMENT;
  (void)stream;  // in a build without CUDA
  return EDGESEG_CUDA_STATUS(edgeseg::confusion_matrix_cuda(call, stream));
}
