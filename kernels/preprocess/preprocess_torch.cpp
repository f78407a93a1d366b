// torch.ops.edgeseg.preprocess. The schema, the fake and the reference are in edgeseg/ops/_torch_preprocess.py.
#include "common/torch_op.h"

#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <tuple>
#include <vector>

#include "preprocess/preprocess.h"

namespace edgeseg {
namespace {

// The arguments of the operator, checked.
struct Call {
  Tensor images;  // (N, H, W, 3), pixels side by side
  std::vector<double> mean, std;
  PreprocessShape shape;
  PreprocessOptions options;

  Call(const Tensor& given, int64_t height, int64_t width, const std::vector<double>& mean_,
       const std::vector<double>& std_, const std::string& mode, const std::string& order, ScalarType dtype)
      : images(given), mean(mean_), std(std_) {
    STD_TORCH_CHECK(given.dim() == 4 && given.size(3) == 3, "images must be (N, H, W, 3)");
    STD_TORCH_CHECK(given.scalar_type() == ScalarType::Byte, "images must be uint8");
    STD_TORCH_CHECK(mean.size() == 3 && std.size() == 3, "mean and std must have three numbers each");
    STD_TORCH_CHECK(mode == "antialias" || mode == "bilinear", "mode must be antialias or bilinear, got ", mode);
    STD_TORCH_CHECK(order == "RGB" || order == "BGR", "order must be RGB or BGR, got ", order);
    STD_TORCH_CHECK(dtype == ScalarType::Float || dtype == ScalarType::Half, "dtype must be float32 or float16");
    shape = {given.size(0), given.size(1), given.size(2), height, width};
    options = {mean.data(), std.data(), mode == "bilinear" ? Resampling::kBilinear : Resampling::kAntialias,
               order == "BGR", dtype == ScalarType::Half ? Element::kF16 : Element::kF32};
    const char* fault = preprocess_fault(shape, options);
    STD_TORCH_CHECK(fault == nullptr, "preprocess cannot take ", fault == nullptr ? "" : fault);
    if (given.stride(3) != 1 || (given.stride(2) != 3 && given.size(2) > 1)) images = torch::stable::contiguous(given);
  }
  Call(const Call&) = delete;

  PreprocessImages source() const {
    return {static_cast<const std::uint8_t*>(images.const_data_ptr()), images.stride(0), images.stride(1)};
  }
  Tensor empty_result() const {
    const ScalarType type = options.element == Element::kF16 ? ScalarType::Half : ScalarType::Float;
    return torch::stable::new_empty(images, {shape.N, 3, shape.h, shape.w}, type);
  }
};

// edgeseg::preprocess(Tensor images, SymInt height, SymInt width, float[] mean, float[] std, str mode, str order,
//                     ScalarType dtype, int threads=0) -> Tensor
Tensor preprocess(const Tensor& images, int64_t height, int64_t width, const std::vector<double>& mean,
                  const std::vector<double>& std, const std::string& mode, const std::string& order, ScalarType dtype,
                  int64_t threads) {
  const Call call(images, height, width, mean, std, mode, order, dtype);
  Tensor tensor = call.empty_result();
  const bool done = preprocess_cpu(call.source(), tensor.mutable_data_ptr(), call.shape, call.options,
                                   InstructionSet::kAutomatic, torch_threads(threads), torch_parallel_for(threads));
  STD_TORCH_CHECK(done, "preprocess: out of memory");
  return tensor;
}

#if defined(EDGESEG_CUDA)
// The plan of a call on its device. The first plans are kept for good, so that any stream may read them at any time;
// copying one waits for the copy. Once there are many, a plan lives as long as its call, on the stream of its call.
Tensor device_plan(const Call& call) {
  constexpr std::size_t kMostKept = 256;
  using Key = std::tuple<int, int64_t, int64_t, int64_t, int64_t, bool, bool, std::vector<double>, std::vector<double>>;
  static std::mutex mutex;
  static auto* const kept = new std::map<Key, Tensor>;  // never destroyed: CUDA may be gone before it
  const PreprocessShape& s = call.shape;
  const int device = call.images.get_device_index();
  const Key key = {device, s.H,      s.W, s.h, s.w, interpolates(s, call.options), call.options.bgr,
                   call.mean, call.std};
  const std::lock_guard<std::mutex> lock(mutex);
  if (const auto found = kept->find(key); found != kept->end()) return found->second;
  const std::vector<std::uint32_t> words = preprocess_plan(s, call.options);
  Tensor plan = torch::stable::empty({static_cast<int64_t>(words.size())}, ScalarType::Int, std::nullopt,
                                     torch::stable::Device(torch::headeronly::DeviceType::CPU));
  std::memcpy(plan.mutable_data_ptr(), words.data(), words.size() * sizeof(words[0]));
  plan = torch::stable::to(plan, torch::stable::Device(torch::headeronly::DeviceType::CUDA,
                                                       static_cast<torch::stable::accelerator::DeviceIndex>(device)));
  if (kept->size() < kMostKept) kept->emplace(key, plan);
  return plan;
}

Tensor preprocess_on_cuda(const Tensor& images, int64_t height, int64_t width, const std::vector<double>& mean,
                          const std::vector<double>& std, const std::string& mode, const std::string& order,
                          ScalarType dtype, int64_t /*threads*/) {
  const Call call(images, height, width, mean, std, mode, order, dtype);
  const torch::stable::accelerator::DeviceGuard guard(images.get_device_index());
  Tensor tensor = call.empty_result();
  if (call.shape.N == 0) return tensor;
  const Tensor plan = device_plan(call);
  const int error = preprocess_cuda(call.source(), static_cast<const std::uint32_t*>(plan.const_data_ptr()),
                                    tensor.mutable_data_ptr(), call.shape, call.options, current_cuda_stream(images));
  STD_TORCH_CHECK(error == 0, "preprocess: CUDA error ", error);
  return tensor;
}
#endif

}  // namespace
}  // namespace edgeseg

STABLE_TORCH_LIBRARY_IMPL(edgeseg, CPU, m) { m.impl("preprocess", TORCH_BOX(&edgeseg::preprocess)); }
#if defined(EDGESEG_CUDA)
STABLE_TORCH_LIBRARY_IMPL(edgeseg, CUDA, m) { m.impl("preprocess", TORCH_BOX(&edgeseg::preprocess_on_cuda)); }
#endif
