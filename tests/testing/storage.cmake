# Fakes of storage/ interfaces.
semshare_library(NAME semshare_testing_storage
  SRCS memory_disk_tier.cc
  HDRS memory_disk_tier.h
  DEPS semshare_storage)

# Link it into every test that opens a store on RocksDB. An object, because no symbol asks for it.
add_library(semshare_testing_rocksdb_tsan OBJECT rocksdb_tsan.cc)
target_link_libraries(semshare_testing_rocksdb_tsan PUBLIC semshare_options)
