// What ThreadSanitizer must not report in tests that use RocksDB: Debian's build of it is not
// instrumented, so the atomics that order its accesses are not seen, while its calls of memcpy,
// memcmp and operator new are. So races with RocksDB, or with the file that calls it, on one of the
// stacks are false; what that file does with threads itself is in flush_group.h and tested apart.
// The last line is a set of strings that only RocksDB has. Without ThreadSanitizer nobody calls
// this.
extern "C" const char* __tsan_default_suppressions();

extern "C" const char* __tsan_default_suppressions() {
  return "race:rocksdb::\n"
         "race:rocksdb_tier.cc\n"
         "race:std::_Hashtable<std::__cxx11::basic_string<char\n";
}
