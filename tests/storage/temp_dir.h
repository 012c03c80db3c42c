// TempDir: a new directory that is removed with all that is in it. Not thread-safe.
#ifndef SEMSHARE_TESTS_STORAGE_TEMP_DIR_H_
#define SEMSHARE_TESTS_STORAGE_TEMP_DIR_H_

#include <stdlib.h>

#include <filesystem>
#include <string>
#include <system_error>

#include "gtest/gtest.h"
#include "kernels/base/status_macros.h"

namespace semshare::testing {

class TempDir {
 public:
  TempDir() : path_(::testing::TempDir() + "/semshare-XXXXXX") {
    SEMSHARE_CHECK(mkdtemp(path_.data()) != nullptr);
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace semshare::testing

#endif  // SEMSHARE_TESTS_STORAGE_TEMP_DIR_H_
