# The CUDA part, libtrivet_cuda.so: a library of its own that libtrivet opens when a GPU is asked for. Its sources are
# compiled once more for the emulation of tests/emulation.
set(TRIVET_CUDA_SOURCES
  base/device_cuda.cu
  base/memory_cuda.cu
  kernels/hopper_cuda.cu
  kernels/kernels_cuda.cu
  kernels/activation/activation_cuda.cu
  kernels/adamw/adamw_cuda.cu
  kernels/attention/attention_backward_cuda.cu
  kernels/attention/attention_forward_cuda.cu
  kernels/attention/attention_general_cuda.cu
  kernels/convert/convert_cuda.cu
  kernels/cross_entropy/cross_entropy_cuda.cu
  kernels/dropout/dropout_cuda.cu
  kernels/elementwise/elementwise_cuda.cu
  kernels/embedding/embedding_cuda.cu
  kernels/lion/lion_cuda.cu
  kernels/matmul/matmul_cuda.cu
  kernels/matmul/plans_cuda.cu
  kernels/norm/norm_cuda.cu
  kernels/rotary/rotary_cuda.cu
)
# Kernels of Hopper's own instructions: sm_90a, which runs on compute capability 9.0 alone and is asked for there alone.
set(TRIVET_HOPPER_SOURCES
  kernels/attention/attention_backward_hopper_cuda.cu
  kernels/attention/attention_forward_hopper_cuda.cu
)
# The same bits as in the other tables.
set(TRIVET_CUDA_UNFUSED kernels/elementwise/elementwise_cuda.cu kernels/lion/lion_cuda.cu)
list(TRANSFORM TRIVET_CUDA_SOURCES PREPEND ${PROJECT_SOURCE_DIR}/)
list(TRANSFORM TRIVET_HOPPER_SOURCES PREPEND ${PROJECT_SOURCE_DIR}/)
list(TRANSFORM TRIVET_CUDA_UNFUSED PREPEND ${PROJECT_SOURCE_DIR}/)

# TRIVET_CUDA: AUTO (build it where nvcc is found), ON (it must be there), OFF.
set(TRIVET_CUDA AUTO CACHE STRING "Build the CUDA part: AUTO, ON or OFF")
set_property(CACHE TRIVET_CUDA PROPERTY STRINGS AUTO ON OFF)
set(TRIVET_HAVE_CUDA OFF)
if(NOT TRIVET_CUDA STREQUAL "OFF")
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    set(TRIVET_HAVE_CUDA ON)
  elseif(TRIVET_CUDA STREQUAL "ON")
    message(FATAL_ERROR "TRIVET_CUDA=ON, but no CUDA compiler was found")
  endif()
endif()
if(TRIVET_HAVE_CUDA)
  if(NOT CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES "80-real;90") # machine code for sm_80 and sm_90, PTX of the last for later ones
  endif()
  enable_language(CUDA)
  set(CMAKE_CUDA_STANDARD 17)
  find_package(CUDAToolkit REQUIRED)
  find_path(NCCL_INCLUDE_DIR nccl.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
  find_library(NCCL_LIBRARY nccl HINTS ${CUDAToolkit_LIBRARY_DIR})
endif()
if(TRIVET_HAVE_CUDA AND NCCL_INCLUDE_DIR AND NCCL_LIBRARY)
  message(STATUS "CUDA ${CUDAToolkit_VERSION}, NCCL in ${NCCL_INCLUDE_DIR}")
elseif(TRIVET_HAVE_CUDA)
  message(STATUS "CUDA ${CUDAToolkit_VERSION}, without NCCL")
else()
  message(STATUS "without CUDA")
endif()

# trivet_add_cuda_library(sources...): libtrivet_cuda.so beside the program. Without NCCL it says so when it is
# asked for.
function(trivet_add_cuda_library)
  add_library(trivet_cuda_hopper OBJECT ${TRIVET_HOPPER_SOURCES})
  set_target_properties(trivet_cuda_hopper PROPERTIES CUDA_ARCHITECTURES 90a-real POSITION_INDEPENDENT_CODE ON)
  add_library(trivet_cuda MODULE ${ARGN} $<TARGET_OBJECTS:trivet_cuda_hopper>)
  set_source_files_properties(${TRIVET_CUDA_UNFUSED} PROPERTIES COMPILE_OPTIONS -fmad=false)
  foreach(target trivet_cuda trivet_cuda_hopper)
    target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR} ${PROJECT_BINARY_DIR}/include)
    target_compile_options(${target} PRIVATE -Xcompiler=-Wall,-Wextra,-Werror -Werror=all-warnings)
  endforeach()
  target_link_libraries(trivet_cuda PRIVATE CUDA::cudart_static CUDA::cublasLt)
  if(NCCL_INCLUDE_DIR AND NCCL_LIBRARY)
    target_sources(trivet_cuda PRIVATE mesh/comm_nccl_cuda.cu)
    target_include_directories(trivet_cuda PRIVATE ${NCCL_INCLUDE_DIR})
    target_link_libraries(trivet_cuda PRIVATE ${NCCL_LIBRARY})
  endif()
  target_link_options(trivet_cuda PRIVATE LINKER:--no-undefined)
  set_target_properties(trivet_cuda PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR})
  install(TARGETS trivet_cuda LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
endfunction()
