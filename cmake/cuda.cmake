# Decides whether the CUDA backend is built (SEMSHARE_CUDA: AUTO, ON, OFF) and sets
# SEMSHARE_CUDA_FOUND. A build with it still runs on machines without a GPU, a driver or cuBLAS: the
# runtime is linked statically, and cuBLAS is loaded when the backend is made.
set(SEMSHARE_CUDA_FOUND FALSE)
if(NOT SEMSHARE_CUDA MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "SEMSHARE_CUDA=${SEMSHARE_CUDA}: expected AUTO, ON or OFF")
endif()

if(NOT SEMSHARE_CUDA STREQUAL "OFF")
  find_program(SEMSHARE_NVCC nvcc PATHS /usr/local/cuda/bin)
  if(SEMSHARE_NVCC)
    set(SEMSHARE_CUDA_FOUND TRUE)
  elseif(SEMSHARE_CUDA STREQUAL "ON")
    message(FATAL_ERROR "SEMSHARE_CUDA=ON: there is no nvcc on PATH or in /usr/local/cuda/bin; "
      "install the CUDA Toolkit, or use AUTO or OFF")
  endif()
endif()

if(SEMSHARE_CUDA_FOUND)
  # 80: Ampere (A100), the oldest that the kernels are checked for spills on.
  # 90: Hopper (H100, H200), which the limits in docs/gpu.md are about.
  # The last one with PTX too, so that newer GPUs run it compiled by their driver.
  set(CMAKE_CUDA_ARCHITECTURES 80-real 90 CACHE STRING "Architectures of the CUDA backend")
  set(CMAKE_CUDA_COMPILER ${SEMSHARE_NVCC} CACHE FILEPATH "The CUDA compiler")
  set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
  enable_language(CUDA)
  # CMake 3.25 does not know that nvcc has C++20, and would refuse the standard that C++ is given.
  if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
    set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
    set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
  endif()
  set(CMAKE_CUDA_STANDARD 20)
  find_package(CUDAToolkit REQUIRED)
  message(STATUS "SEMSHARE_CUDA=${SEMSHARE_CUDA}: took the CUDA backend "
    "(nvcc ${CMAKE_CUDA_COMPILER_VERSION}: ${SEMSHARE_NVCC}; "
    "architectures ${CMAKE_CUDA_ARCHITECTURES})")
elseif(SEMSHARE_CUDA STREQUAL "AUTO")
  message(STATUS "SEMSHARE_CUDA=AUTO: took the CPU backend only (no nvcc on PATH or in "
    "/usr/local/cuda/bin)")
else()
  message(STATUS "SEMSHARE_CUDA=OFF: took the CPU backend only")
endif()
