/* The C interface of libedgeseg_kernels, for ctypes and for C++ programs. No torch, no CUDA headers.
 *
 * Every function that computes returns a status and never throws; edgeseg_status_message says what a status means.
 * Tensors are contiguous, row-major, and do not overlap. Calls may come from several threads at once. */
#ifndef EDGESEG_KERNELS_H_
#define EDGESEG_KERNELS_H_

#include <stdint.h>

#if defined(_WIN32)
#define EDGESEG_API __declspec(dllexport)
#else
#define EDGESEG_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Grows with every incompatible change of this header; a loader refuses a library of another number. */
#define EDGESEG_KERNELS_VERSION 2
EDGESEG_API int32_t edgeseg_kernels_version(void);

enum {
  EDGESEG_OK = 0,
  EDGESEG_INVALID_ARGUMENT = 1,
  EDGESEG_UNSUPPORTED_INSTRUCTION_SET = 2,
  EDGESEG_OUT_OF_MEMORY = 3,
  EDGESEG_NO_CUDA = 4,
  EDGESEG_CUDA_ERROR = 5,
};
EDGESEG_API const char* edgeseg_status_message(int32_t status);

enum {
  EDGESEG_AUTOMATIC = 0, /* the best this machine has */
  EDGESEG_PORTABLE = 1,  /* 4 lanes, the compiler's baseline: SSE2 on x86-64, NEON on AArch64 */
  EDGESEG_AVX2 = 2,      /* 8 lanes, AVX2 and FMA */
  EDGESEG_AVX512 = 3,    /* 16 lanes, AVX-512 F, BW, DQ, VL */
  EDGESEG_LANES16 = 4,   /* the 16-lane code in baseline instructions, for tests anywhere; never chosen by itself */
};
/* What EDGESEG_AUTOMATIC means on this machine. */
EDGESEG_API int32_t edgeseg_cpu_instruction_set(void);
/* 1 where this library holds code for the instruction set and this machine can run it. */
EDGESEG_API int32_t edgeseg_can_run(int32_t instruction_set);
/* "portable", "avx2", ...; "unknown" for a number not listed above. */
EDGESEG_API const char* edgeseg_instruction_set_name(int32_t instruction_set);

/* Element types of tensors that come in several. */
enum { EDGESEG_F32 = 0, EDGESEG_F16 = 1, EDGESEG_BF16 = 2, EDGESEG_S8 = 3 };

/* Functions ending in _cuda take addresses of device memory and a cudaStream_t (as void*; NULL is the default stream),
 * start their work on the current device and return before it is done. */
/* 1 where this library holds CUDA kernels; there may still be no GPU. */
EDGESEG_API int32_t edgeseg_has_cuda(void);
/* CUDA's words for the last EDGESEG_CUDA_ERROR of the calling thread. */
EDGESEG_API const char* edgeseg_cuda_error(void);

/* labels[n, y, x] = argmax_c bilinear(logits[n, c], y, x): see upsample_argmax/upsample_argmax.h.
 * logits (N, C, h, w) of `element`, labels (N, H, W) uint8 (C <= 255) or int32 (C <= 65535), margin (N, H, W) float32 or
 * NULL; N >= 0, every size in [1, 2^22]. align_corners: 0 or 1, as torch's.
 * num_threads: 0 = as many as this process may use and the work deserves. */
EDGESEG_API int32_t edgeseg_upsample_argmax(const void* logits, int32_t element, void* labels, float* margin, int64_t N,
                                            int64_t C, int64_t h, int64_t w, int64_t H, int64_t W,
                                            int32_t align_corners, int32_t num_threads, int32_t instruction_set);
EDGESEG_API int32_t edgeseg_upsample_argmax_cuda(const void* logits, int32_t element, void* labels, float* margin,
                                                 int64_t N, int64_t C, int64_t h, int64_t w, int64_t H, int64_t W,
                                                 int32_t align_corners, void* stream);

/* tensor[n, c, y, x] = (resized[n, y, x, c] / 255 - mean[c]) / std[c]: see preprocess/preprocess.h.
 * images (N, H, W, 3) uint8: image_stride and row_pitch are bytes from one image or row to the next, any; pixels lie side
 * by side. mean, std: three numbers each, of R, G, B in 0..1. tensor (N, 3, h, w), its element EDGESEG_F32 or EDGESEG_F16.
 * Every size in [1, 2^22], N >= 0. */
enum { EDGESEG_ANTIALIAS = 0, EDGESEG_BILINEAR = 1 };
enum { EDGESEG_RGB = 0, EDGESEG_BGR = 1 };
EDGESEG_API int32_t edgeseg_preprocess_u8(const uint8_t* images, int64_t image_stride, int64_t row_pitch,
                                          const double* mean, const double* std, void* tensor, int64_t N, int64_t H,
                                          int64_t W, int64_t h, int64_t w, int32_t mode, int32_t order, int32_t element,
                                          int32_t num_threads, int32_t instruction_set);
/* On a GPU: `plan` is what edgeseg_preprocess_plan wrote for the same sizes, mode and order, in device memory. */
EDGESEG_API int32_t edgeseg_preprocess_u8_cuda(const uint8_t* images, int64_t image_stride, int64_t row_pitch,
                                               const uint32_t* plan, void* tensor, int64_t N, int64_t H, int64_t W,
                                               int64_t h, int64_t w, int32_t mode, int32_t order, int32_t element,
                                               void* stream);
/* The plan in host memory. Sets *words to its length in 32-bit words; *words says how many `plan`, unless NULL, takes. */
EDGESEG_API int32_t edgeseg_preprocess_plan(const double* mean, const double* std, int64_t H, int64_t W, int64_t h,
                                            int64_t w, int32_t mode, int32_t order, uint32_t* plan, int64_t* words);

/* y[n, i, j, o] = act(scale[o] * conv2d(x, weight)[n, o, i, j] + bias[o]), stride 1, "same" padding, taps in the
 * padding skipped: see dilated_conv/dilated_conv.h. act clamps to [low, high].
 * x (N, H, W, C) float32 or int8 (_cuda: float16 too), y (N, H, W, O) float32 (_cuda: x's type; of int8, float32 or
 * float16); a pixel begins x_pitch (y_pitch) elements after its left neighbour, rows and images follow without gaps.
 * Sizes in [1, 2^22], N in [0, 2^22]. */
typedef struct edgeseg_conv_branch {
  const void* weight; /* (kernel, kernel, C, O), _cuda (kernel, kernel, O, C), of x's type */
  const float* bias;  /* (O) or NULL */
  const float* scale; /* (O) where x is int8: scale of x times scale of weight[.., o]; else NULL */
  int32_t kernel;     /* 1, 3, 5 or 7 */
  int32_t dilation;   /* at least 1 */
} edgeseg_conv_branch;
EDGESEG_API int32_t edgeseg_dilated_conv(const void* x, int32_t x_element, const edgeseg_conv_branch* branch, float* y,
                                         int64_t N, int64_t H, int64_t W, int64_t C, int64_t O, int64_t x_pitch,
                                         int64_t y_pitch, float low, float high, int32_t num_threads,
                                         int32_t instruction_set);
/* workspace: as many bytes of device memory, aligned to 256, as the next function says (NULL for 0), of any content;
 * no other call may use it until this one is done. The branch's own pointers are device memory, the struct is not. */
EDGESEG_API int32_t edgeseg_dilated_conv_cuda(const void* x, int32_t x_element, const edgeseg_conv_branch* branch,
                                              void* y, int32_t y_element, int64_t N, int64_t H, int64_t W, int64_t C,
                                              int64_t O, int64_t x_pitch, int64_t y_pitch, float low, float high,
                                              void* workspace, void* stream);
/* *bytes for the current device. Pointers in branch are not looked at. */
EDGESEG_API int32_t edgeseg_dilated_conv_cuda_workspace(int32_t x_element, const edgeseg_conv_branch* branch,
                                                        int32_t y_element, int64_t N, int64_t H, int64_t W, int64_t C,
                                                        int64_t O, int64_t* bytes);

/* Several convolutions of one x, written beside each other into y (N, H, W, branch_count * O), and, unless pool is
 * NULL, last act(mean of x over the map * pool's 1x1 weight + bias) in every pixel: see aspp/aspp.h. Otherwise as above.
 * branch_count in [1, 7]. */
EDGESEG_API int32_t edgeseg_aspp(const void* x, int32_t x_element, const edgeseg_conv_branch* branches,
                                 int32_t branch_count, const edgeseg_conv_branch* pool, float* y, int64_t N, int64_t H,
                                 int64_t W, int64_t C, int64_t O, int64_t x_pitch, int64_t y_pitch, float low,
                                 float high, int32_t num_threads, int32_t instruction_set);
EDGESEG_API int32_t edgeseg_aspp_cuda(const void* x, int32_t x_element, const edgeseg_conv_branch* branches,
                                      int32_t branch_count, const edgeseg_conv_branch* pool, void* y, int32_t y_element,
                                      int64_t N, int64_t H, int64_t W, int64_t C, int64_t O, int64_t x_pitch,
                                      int64_t y_pitch, float low, float high, void* workspace, void* stream);
EDGESEG_API int32_t edgeseg_aspp_cuda_workspace(int32_t x_element, const edgeseg_conv_branch* branches,
                                                int32_t branch_count, const edgeseg_conv_branch* pool,
                                                int32_t y_element, int64_t N, int64_t H, int64_t W, int64_t C,
                                                int64_t O, int64_t* bytes);

/* Means over the bins of a pyramid, packed bin after bin: see pyramid_pooling/pyramid_pooling.h.
 * x (N, C, H, W), pooled (N, C, sum of b^2); with channels_last x (N, H, W, C), pooled (N, sum of b^2, C); both of
 * `element`, one of the floats. bins (bin_count) in host memory, at most 16 that add up to at most 64. H and W in
 * [1, 2^22]. */
EDGESEG_API int32_t edgeseg_pyramid_pooling(const void* x, void* pooled, int32_t element, int64_t N, int64_t C,
                                            int64_t H, int64_t W, const int32_t* bins, int64_t bin_count,
                                            int32_t channels_last, int32_t num_threads, int32_t instruction_set);
/* workspace: as many bytes of device memory as the next function says (NULL for 0), of any content; no other call may
 * use it until this one is done. */
EDGESEG_API int32_t edgeseg_pyramid_pooling_cuda(const void* x, void* pooled, void* workspace, int32_t element,
                                                 int64_t N, int64_t C, int64_t H, int64_t W, const int32_t* bins,
                                                 int64_t bin_count, int32_t channels_last, void* stream);
EDGESEG_API int32_t edgeseg_pyramid_pooling_cuda_workspace(int64_t N, int64_t C, int64_t H, int64_t W,
                                                           const int32_t* bins, int64_t bin_count,
                                                           int32_t channels_last, int64_t* bytes);

/* out = image with each pixel's class colour mixed in by share / 256: see blend_labels/blend_labels.h.
 * image, out (N, H, W, 3), labels (N, H, W), palette (K, 3), all uint8; K in [0, 255], share in [0, 256], H and W at
 * most 2^22. *_row, *_image: bytes from one row, from one image, to the next, perhaps negative. out may be image. */
EDGESEG_API int32_t edgeseg_blend_labels_u8(const uint8_t* image, int64_t image_row, int64_t image_image,
                                            const uint8_t* labels, int64_t labels_row, int64_t labels_image,
                                            const uint8_t* palette, int64_t K, int32_t share, uint8_t* out,
                                            int64_t out_row, int64_t out_image, int64_t N, int64_t H, int64_t W,
                                            int32_t num_threads, int32_t instruction_set);
EDGESEG_API int32_t edgeseg_blend_labels_u8_cuda(const uint8_t* image, int64_t image_row, int64_t image_image,
                                                 const uint8_t* labels, int64_t labels_row, int64_t labels_image,
                                                 const uint8_t* palette, int64_t K, int32_t share, uint8_t* out,
                                                 int64_t out_row, int64_t out_image, int64_t N, int64_t H, int64_t W,
                                                 void* stream);

/* counts[t, p] = pixels of target t labelled p: see confusion_matrix/confusion_matrix.h.
 * labels, target (count) uint8 (id_type 0) or int32 (1); counts (K + 1, K + 1), index K for ids that are no class;
 * 1 <= K <= 255, ignore_index in [0, 255]. */
EDGESEG_API int32_t edgeseg_confusion_matrix(const void* labels, const void* target, int32_t id_type, int64_t count,
                                             int64_t K, int32_t ignore_index, int64_t* counts, int32_t num_threads);
EDGESEG_API int32_t edgeseg_confusion_matrix_cuda(const void* labels, const void* target, int32_t id_type,
                                                  int64_t count, int64_t K, int32_t ignore_index, int64_t* counts,
                                                  void* stream);

#ifdef __cplusplus
}
#endif
#endif /* EDGESEG_KERNELS_H_ */
