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
#define EDGESEG_KERNELS_VERSION 1
EDGESEG_API int32_t edgeseg_kernels_version(void);

enum {
  EDGESEG_OK = 0,
  EDGESEG_INVALID_ARGUMENT = 1,
  EDGESEG_UNSUPPORTED_INSTRUCTION_SET = 2,
  EDGESEG_OUT_OF_MEMORY = 3,
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

/* labels[n, y, x] = argmax_c bilinear(logits[n, c], y, x): see upsample_argmax/upsample_argmax.h.
 * logits (N, C, h, w) float32, labels (N, H, W) uint8; N >= 0, 1 <= C <= 255, every size in [1, 2^22].
 * num_threads: 0 = as many as this process may use and the work deserves. */
EDGESEG_API int32_t edgeseg_upsample_argmax_f32(const float* logits, uint8_t* labels, int64_t N, int64_t C, int64_t h,
                                                int64_t w, int64_t H, int64_t W, int32_t num_threads,
                                                int32_t instruction_set);

/* tensor[c, y, x] = table[c, image[y, x, c]]: see normalize_image/normalize_image.h.
 * image (H, W, 3) uint8, table (3, 256) float32, tensor (3, H, W) float32; every size in [1, 2^22]. */
EDGESEG_API int32_t edgeseg_normalize_image_u8(const uint8_t* image, const float* table, float* tensor, int64_t H,
                                               int64_t W, int32_t num_threads);

#ifdef __cplusplus
}
#endif
#endif /* EDGESEG_KERNELS_H_ */
