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

# For cblas.h alone: the library is opened when the program starts (docs/decisions/0016).
pkg_check_modules(OPENBLAS REQUIRED openblas)
add_library(trivet_blas INTERFACE)
target_include_directories(trivet_blas SYSTEM INTERFACE ${OPENBLAS_INCLUDE_DIRS})

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
  # Numbers of threads that only pragmas read; behind -Wall, since clang takes the last word.
  target_compile_options(trivet_warnings INTERFACE -Wno-unused-variable)
endif()
