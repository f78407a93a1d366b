# Enables the CUDA language where nvcc is found, and sets EDGESEG_CUDA_TARGETS: nvcc's flags for the GPUs to compile for.
option(EDGESEG_CUDA "Build the CUDA kernels when nvcc is found" ON)
set(EDGESEG_CUDA_ARCHITECTURES "75;80;86;87;89;90;100;110;120" CACHE STRING "Compute capabilities to compile for")
# 75 Turing, T4 · 80 A100 · 86 RTX 30 · 87 Jetson Orin · 89 RTX 40, L4 · 90 H100 · 100 B200 · 110 Jetson Thor ·
# 120 RTX 50. The last one is kept as PTX too, which newer GPUs compile for themselves.

if(EDGESEG_CUDA)
  set(CMAKE_CUDA_ARCHITECTURES OFF)  # the targets below say it all
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    enable_language(CUDA)
    find_package(CUDAToolkit REQUIRED)
    execute_process(COMMAND ${CMAKE_CUDA_COMPILER} --list-gpu-code OUTPUT_VARIABLE known)
    set(EDGESEG_CUDA_TARGETS "")
    foreach(capability IN LISTS EDGESEG_CUDA_ARCHITECTURES)
      if(known MATCHES "sm_${capability}\n")
        list(APPEND EDGESEG_CUDA_TARGETS "-gencode=arch=compute_${capability},code=sm_${capability}")
        set(newest ${capability})
      else()
        message(STATUS "edgeseg: CUDA ${CUDAToolkit_VERSION} cannot compile for sm_${capability}; left out")
      endif()
    endforeach()
    list(APPEND EDGESEG_CUDA_TARGETS "-gencode=arch=compute_${newest},code=compute_${newest}")
  endif()
endif()
