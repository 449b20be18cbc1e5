# trivet_add_library(folder LINK targets... SOURCES files...): the static library trivet_<folder> of one layer.
function(trivet_add_library folder)
  cmake_parse_arguments(ARG "" "" "SOURCES;LINK" ${ARGN})
  add_library(trivet_${folder} STATIC ${ARG_SOURCES})
  target_link_libraries(trivet_${folder} PUBLIC trivet_options PRIVATE trivet_warnings PUBLIC ${ARG_LINK})
endfunction()
