# trivet_add_test(name SOURCES files... LINK targets... [RANKS n...] [LABELS labels...] [TIMEOUT s])
# Without RANKS: one process. With RANKS: once per count under mpiexec, named name.mpi<n>.
find_package(GTest REQUIRED)

# Test code is compiled fast rather than made fast: it is the library's code that is optimized and instrumented. GCC 12
# warns falsely inside std::string (its bug 105329).
add_library(trivet_test_options INTERFACE)
if(TRIVET_SANITIZE)
  target_compile_options(trivet_test_options INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-O0 -g1>)
else()
  target_compile_options(trivet_test_options INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-O1>)
endif()
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  target_compile_options(trivet_test_options INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-Wno-stringop-overflow -Wno-restrict>)
endif()

# GoogleTest's header takes longer to compile than most tests: once for all of them.
file(WRITE ${PROJECT_BINARY_DIR}/test_header.cc "int main() { return 0; }\n")
add_executable(trivet_test_header ${PROJECT_BINARY_DIR}/test_header.cc)
target_link_libraries(trivet_test_header PRIVATE trivet_options trivet_warnings trivet_test_options GTest::gtest)
target_precompile_headers(trivet_test_header PRIVATE <gtest/gtest.h> <string> <thread> <vector>)

function(trivet_add_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT" "SOURCES;LINK;RANKS;LABELS" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE ${ARG_LINK} trivet_warnings trivet_test_options GTest::gtest)
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR}/tests)
  target_precompile_headers(${name} REUSE_FROM trivet_test_header)
  if(NOT ARG_RANKS)
    add_test(NAME ${name} COMMAND ${name})
    set_tests_properties(${name} PROPERTIES TIMEOUT ${ARG_TIMEOUT} LABELS "${ARG_LABELS}" SKIP_RETURN_CODE 77)
  endif()
  foreach(ranks ${ARG_RANKS})
    add_test(NAME ${name}.mpi${ranks} COMMAND ${MPIEXEC_EXECUTABLE} -n ${ranks} $<TARGET_FILE:${name}>)
    set_tests_properties(${name}.mpi${ranks} PROPERTIES TIMEOUT ${ARG_TIMEOUT} LABELS "ranks;sanitize;${ARG_LABELS}"
      PROCESSORS 2 ENVIRONMENT "OMP_NUM_THREADS=1;ASAN_OPTIONS=detect_leaks=0") # MPI's transports are never unloaded
  endforeach()
endfunction()
