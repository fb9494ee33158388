# One static library per folder of src/, each with its own include root.
#
# `#include "base/mem.h"` works only where the root of `base` was granted: the roots are folders of
# links in the build tree, <build>/include-roots/base/base -> src/base. So a forbidden include does
# not compile, and the table in CMakeLists.txt is the architecture.

function(include_root name)
  set(root ${CMAKE_BINARY_DIR}/include-roots/${name})
  file(MAKE_DIRECTORY ${root})
  file(CREATE_LINK ${CMAKE_SOURCE_DIR}/src/${name} ${root}/${name} SYMBOLIC)
endfunction()

function(module name)
  cmake_parse_arguments(M "HEADERS_ONLY" "" "USES;LIBS" ${ARGN})
  include_root(${name})
  set(root ${CMAKE_BINARY_DIR}/include-roots/${name})
  if(M_HEADERS_ONLY)
    add_library(${name} INTERFACE)
    target_include_directories(${name} INTERFACE ${root})
    return()
  endif()
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/${name}/*.c)
  add_library(${name} STATIC ${sources})
  target_include_directories(${name} PUBLIC ${root})
  # Include roots of the folders in the table only: not what those folders use in turn.
  foreach(used ${M_USES})
    target_include_directories(${name} PRIVATE ${CMAKE_BINARY_DIR}/include-roots/${used})
  endforeach()
  foreach(used ${M_USES})
    if(NOT used STREQUAL core)
      target_link_libraries(${name} INTERFACE ${used})
    endif()
  endforeach()
  target_link_libraries(${name} PRIVATE flags ${M_LIBS})
endfunction()
