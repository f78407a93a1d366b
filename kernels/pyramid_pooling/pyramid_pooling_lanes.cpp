// The vector code of pyramid_pooling, compiled once per instruction set with its own EDGESEG_LANES and
// EDGESEG_LANES_NAMESPACE. The specification is pyramid_pooling.h.
#include "pyramid_pooling/pyramid_pooling_lanes.h"

#include "pyramid_pooling/lanes_first.h"
#include "pyramid_pooling/lanes_last.h"

namespace edgeseg {
namespace EDGESEG_LANES_NAMESPACE {

void pyramid_pooling_last(const PoolingGrid& grid, Element element, const PoolingLastTask& task) {
  switch (element) {
    case Element::kF32:
      return pool_last<F32>(grid, task);
    case Element::kF16:
      return pool_last<F16>(grid, task);
    case Element::kBf16:
      return pool_last<Bf16>(grid, task);
  }
}

void pyramid_pooling_first(const PoolingGrid& grid, Element element, const PoolingFirstTask& task) {
  switch (element) {
    case Element::kF32:
      return pool_first<F32>(grid, task);
    case Element::kF16:
      return pool_first<F16>(grid, task);
    case Element::kBf16:
      return pool_first<Bf16>(grid, task);
  }
}

}  // namespace EDGESEG_LANES_NAMESPACE
}  // namespace edgeseg
