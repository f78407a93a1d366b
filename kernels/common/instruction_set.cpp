#include "common/instruction_set.h"

namespace edgeseg {

bool can_run(InstructionSet set) {
  switch (set) {
    case InstructionSet::kAutomatic:
    case InstructionSet::kPortable:
    case InstructionSet::kLanes16:
      return true;
#if EDGESEG_X86
    case InstructionSet::kAvx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    case InstructionSet::kAvx512:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && can_run(InstructionSet::kAvx2);
#endif
    default:
      return false;
  }
}

InstructionSet best_instruction_set() {
  if (can_run(InstructionSet::kAvx512)) return InstructionSet::kAvx512;
  if (can_run(InstructionSet::kAvx2)) return InstructionSet::kAvx2;
  return InstructionSet::kPortable;
}

}  // namespace edgeseg
