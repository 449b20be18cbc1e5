# Everything trivet needs from outside, as interface targets.
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
find_package(MPI REQUIRED COMPONENTS C)
pkg_check_modules(JANSSON REQUIRED IMPORTED_TARGET jansson)
pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET libxxhash)
pkg_check_modules(HWLOC REQUIRED IMPORTED_TARGET hwloc>=2.5)
pkg_check_modules(EXPAT REQUIRED IMPORTED_TARGET expat)
pkg_check_modules(YAML REQUIRED IMPORTED_TARGET yaml-0.1)
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8>=10.30)
pkg_check_modules(SENTENCEPIECE IMPORTED_TARGET sentencepiece) # optional: trivet tokenize
if(TRIVET_OPENMP)
  find_package(OpenMP REQUIRED COMPONENTS C)
endif()

# The library of matrix products (docs/decisions/0016).
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set(TRIVET_BLAS onednn CACHE STRING "Library of matrix products: onednn or openblas")
else()
  set(TRIVET_BLAS openblas CACHE STRING "Library of matrix products: onednn or openblas")
endif()
add_library(trivet_blas INTERFACE)
if(TRIVET_BLAS STREQUAL "onednn")
  find_package(dnnl REQUIRED CONFIG)
  # oneDNN's own threads are OpenMP's; sgemm_onednn.c turns them off.
  target_link_libraries(trivet_blas INTERFACE DNNL::dnnl $<IF:$<BOOL:${TRIVET_OPENMP}>,OpenMP::OpenMP_C,gomp>)
elseif(TRIVET_BLAS STREQUAL "openblas")
  pkg_check_modules(OPENBLAS REQUIRED IMPORTED_TARGET openblas)
  target_link_libraries(trivet_blas INTERFACE PkgConfig::OPENBLAS)
else()
  message(FATAL_ERROR "TRIVET_BLAS is '${TRIVET_BLAS}'; it can be onednn or openblas")
endif()

add_library(trivet_warnings INTERFACE)
target_compile_options(trivet_warnings INTERFACE -Wall -Wextra -Wshadow
  $<$<COMPILE_LANGUAGE:C>:-Wconversion -Wstrict-prototypes -Wmissing-prototypes>
  $<$<BOOL:${TRIVET_WERROR}>:-Werror>)

add_library(trivet_options INTERFACE)
target_include_directories(trivet_options INTERFACE ${PROJECT_SOURCE_DIR} ${PROJECT_BINARY_DIR}/include)
target_compile_definitions(trivet_options INTERFACE _GNU_SOURCE)
# Contraction into fused multiply-add changes bits between compilers and between vector and tail loops.
target_compile_options(trivet_options INTERFACE $<$<COMPILE_LANGUAGE:C>:-ffp-contract=off>)
if(TRIVET_SANITIZE)
  target_compile_options(trivet_options INTERFACE -fsanitize=${TRIVET_SANITIZE} -fno-omit-frame-pointer -g)
  target_link_options(trivet_options INTERFACE -fsanitize=${TRIVET_SANITIZE})
endif()
if(TRIVET_OPENMP)
  target_link_libraries(trivet_options INTERFACE OpenMP::OpenMP_C)
else()
  target_compile_options(trivet_options INTERFACE -Wno-unknown-pragmas)
endif()
