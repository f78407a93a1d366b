// The element types that float tensors come in. The numbers are those of edgeseg_kernels.h.
#pragma once

#include <cstddef>

namespace edgeseg {

enum class Element : int { kF32 = 0, kF16 = 1, kBf16 = 2 };

inline bool is_element(int number) { return number >= 0 && number <= 2; }

inline std::size_t bytes_of(Element element) { return element == Element::kF32 ? 4 : 2; }

}  // namespace edgeseg
