# Matching on the CPU: the aligner and the candidate index.
add_executable(match_bench ${CMAKE_CURRENT_LIST_DIR}/match_bench.cc)
target_link_libraries(match_bench PRIVATE semshare_options semshare_match semshare_kernels_cpu)
add_executable(index_bench ${CMAKE_CURRENT_LIST_DIR}/index_bench.cc)
target_link_libraries(index_bench PRIVATE semshare_options semshare_match semshare_kernels_cpu
  absl::flags absl::flags_parse absl::str_format absl::strings)
