# Targets name their sources and dependencies; third parties are PRIVATE where headers allow it.

add_library(semshare_options INTERFACE)
set(semshare_warnings
  -Wall -Wextra -Werror -Wno-missing-field-initializers -fno-omit-frame-pointer)
# Constexpr functions of shared headers are device code, too. nvcc's own warnings are errors as
# well; the host compiler sees code that nvcc made of a .cu, so less is asked of it.
set(semshare_cuda_options --expt-relaxed-constexpr -Werror=all-warnings
  -Xcompiler=-Wall,-Werror,-fno-omit-frame-pointer)
target_compile_options(semshare_options INTERFACE
  "$<$<COMPILE_LANGUAGE:C,CXX>:${semshare_warnings}>"
  "$<$<COMPILE_LANGUAGE:CUDA>:${semshare_cuda_options}>")
target_include_directories(semshare_options INTERFACE ${PROJECT_SOURCE_DIR})
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # GCC 12 reports string concatenation as overlapping copies where there are none (PR 105651).
  target_compile_options(semshare_options INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Wno-restrict>)
endif()
if(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
  target_compile_options(semshare_options INTERFACE -Wthread-safety -Werror=thread-safety)
endif()
if(SEMSHARE_SANITIZER)
  target_compile_options(semshare_options INTERFACE -fsanitize=${SEMSHARE_SANITIZER}
    -fno-sanitize-recover=all)
  target_link_options(semshare_options INTERFACE -fsanitize=${SEMSHARE_SANITIZER})
endif()

find_program(SEMSHARE_MOLD mold)
if(SEMSHARE_MOLD)
  target_link_options(semshare_options INTERFACE -fuse-ld=mold)
endif()
find_program(SEMSHARE_CCACHE ccache)
if(SEMSHARE_CCACHE)
  set(CMAKE_C_COMPILER_LAUNCHER ${SEMSHARE_CCACHE})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${SEMSHARE_CCACHE})
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${SEMSHARE_CCACHE})
endif()

# semshare_library(NAME name SRCS ... HDRS ... DEPS public... PRIVATE_DEPS ...)
function(semshare_library)
  cmake_parse_arguments(ARG "" "NAME" "SRCS;HDRS;DEPS;PRIVATE_DEPS" ${ARGN})
  if(ARG_SRCS)
    add_library(${ARG_NAME} STATIC ${ARG_SRCS} ${ARG_HDRS})
    target_link_libraries(${ARG_NAME}
      PUBLIC semshare_options ${ARG_DEPS}
      PRIVATE ${ARG_PRIVATE_DEPS})
  else()
    add_library(${ARG_NAME} INTERFACE)
    target_link_libraries(${ARG_NAME} INTERFACE semshare_options ${ARG_DEPS})
  endif()
endfunction()

# semshare_test(NAME name SRCS ... DEPS ... [LABELS ...])
function(semshare_test)
  cmake_parse_arguments(ARG "" "NAME" "SRCS;DEPS;LABELS" ${ARGN})
  add_executable(${ARG_NAME} ${ARG_SRCS})
  target_link_libraries(${ARG_NAME} PRIVATE semshare_options ${ARG_DEPS} GTest::gmock_main)
  add_test(NAME ${ARG_NAME} COMMAND ${ARG_NAME})
  set_tests_properties(${ARG_NAME} PROPERTIES TIMEOUT 900)
  if(ARG_LABELS)
    set_tests_properties(${ARG_NAME} PROPERTIES LABELS "${ARG_LABELS}")
  endif()
endfunction()
