# Where the building Python keeps torch, asked without importing it.
# find_package(Torch) is avoided on purpose: it drags in torch's own compiler flags and, in CUDA builds of torch, a CUDA
# toolkit; the stable ABI needs nothing but the headers and libtorch.
#
# Sets EDGESEG_TORCH_ROOT, the folder with include/ and lib/, and EDGESEG_TORCH_REASON, torch's version; or leaves the
# first empty and gives the reason in the second.
option(EDGESEG_TORCH "Build the torch operators when torch >= 2.10 is in the building Python" ON)
set(EDGESEG_TORCH_ROOT "")
set(EDGESEG_TORCH_REASON "EDGESEG_TORCH is OFF")

if(EDGESEG_TORCH)
  find_package(Python COMPONENTS Interpreter)
  set(EDGESEG_TORCH_REASON "no Python interpreter")
  if(Python_EXECUTABLE)
    execute_process(
      COMMAND "${Python_EXECUTABLE}" -c [=[
import importlib.metadata, importlib.util, re
spec = importlib.util.find_spec("torch")
if spec is None or not spec.submodule_search_locations:
    print(";no torch in the building Python")
else:
    version = importlib.metadata.version("torch")
    number = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    root = list(spec.submodule_search_locations)[0]
    print(f"{root};{version}" if number >= (2, 10) else f";torch {version} is older than 2.10")
]=]
      OUTPUT_VARIABLE answer OUTPUT_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE failed ERROR_QUIET)
    if(failed)
      set(EDGESEG_TORCH_REASON "asking ${Python_EXECUTABLE} for torch failed")
    else()
      list(GET answer 0 EDGESEG_TORCH_ROOT)
      list(GET answer 1 EDGESEG_TORCH_REASON)
    endif()
  endif()
endif()
