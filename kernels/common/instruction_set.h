// Which vector instructions this machine runs. The numbers are those of edgeseg_kernels.h.
#pragma once

namespace edgeseg {

enum class InstructionSet : int { kAutomatic = 0, kPortable = 1, kAvx2 = 2, kAvx512 = 3, kLanes16 = 4 };

// True where the library holds code for it and the machine can run it.
bool can_run(InstructionSet set);

// The best one that can run; never kLanes16, which exists for tests.
InstructionSet best_instruction_set();

}  // namespace edgeseg
