// What ThreadSanitizer must not report in tests that use RocksDB: Debian's build of it is not
// instrumented, so the atomics that order its accesses are not seen, while calls of memcpy, memcmp
// and operator delete from it are. Accesses from our code are checked as ever. Without
// ThreadSanitizer nobody calls this.
extern "C" const char* __tsan_default_suppressions();

extern "C" const char* __tsan_default_suppressions() { return "called_from_lib:librocksdb.so\n"; }
