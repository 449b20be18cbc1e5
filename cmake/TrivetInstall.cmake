# libtrivet.so out of all folders, its headers as <trivet/...>, and how others find it: pkg-config and find_package.
set(folders base mesh kernels tensor pipeline data model train)
set(objects "")
foreach(folder ${folders})
  list(APPEND objects $<TARGET_OBJECTS:trivet_${folder}>)
endforeach()
foreach(copy trivet_kernels_bf16 trivet_kernels_avx2 trivet_kernels_avx2_bf16 trivet_kernels_avx512
    trivet_kernels_avx512_bf16)
  if(TARGET ${copy})
    list(APPEND objects $<TARGET_OBJECTS:${copy}>)
  endif()
endforeach()
add_library(libtrivet SHARED ${objects})
set_target_properties(libtrivet PROPERTIES OUTPUT_NAME trivet VERSION ${PROJECT_VERSION}
  SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR} LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}
  LINKER_LANGUAGE C BUILD_RPATH "$ORIGIN" INSTALL_RPATH "$ORIGIN"
  LINK_OPTIONS -Wl,--no-undefined)
target_link_libraries(libtrivet PRIVATE trivet_options MPI::MPI_C PkgConfig::JANSSON PkgConfig::XXHASH
  PkgConfig::HWLOC PkgConfig::EXPAT PkgConfig::YAML PkgConfig::PCRE2 trivet_blas Threads::Threads m ${CMAKE_DL_LIBS})
target_include_directories(libtrivet INTERFACE $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>
  $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}/trivet>)

set_target_properties(trivet PROPERTIES BUILD_RPATH "$ORIGIN" INSTALL_RPATH "$ORIGIN/../${CMAKE_INSTALL_LIBDIR}")
install(TARGETS trivet RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(TARGETS libtrivet LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})

foreach(folder ${folders})
  file(GLOB headers ${PROJECT_SOURCE_DIR}/${folder}/*.h)
  list(FILTER headers EXCLUDE REGEX "_internal\\.h$|/commands\\.h$|_cuda\\.h$|/console\\.h$|/files\\.h$|/sentencepiece_module\\.h$|/bpe\\.h$|/corpus_words\\.h$|/tokenize_pieces\\.h$")
  install(FILES ${headers} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/trivet/${folder})
endforeach()
install(FILES ${PROJECT_BINARY_DIR}/include/base/version.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/trivet/base)
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE ${PROJECT_SOURCE_DIR}/README.md DESTINATION ${CMAKE_INSTALL_DOCDIR})

file(RELATIVE_PATH TRIVET_PC_TO_PREFIX /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix) # the tree may be moved
configure_file(${PROJECT_SOURCE_DIR}/cmake/trivet.pc.in ${PROJECT_BINARY_DIR}/trivet.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/trivet.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

include(CMakePackageConfigHelpers)
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/trivet)
configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/trivetConfig.cmake.in
  ${PROJECT_BINARY_DIR}/trivetConfig.cmake INSTALL_DESTINATION ${package_dir}
  PATH_VARS CMAKE_INSTALL_LIBDIR CMAKE_INSTALL_INCLUDEDIR)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/trivetConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/trivetConfig.cmake ${PROJECT_BINARY_DIR}/trivetConfigVersion.cmake
  DESTINATION ${package_dir})
