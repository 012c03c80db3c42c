// ByteWriter and ByteReader: little-endian fields of the formats on disk and of hash inputs, byte
// by byte, so that they do not depend on the machine. Internal to storage/.
//
// Not thread-safe. A reader does not own its bytes: they must outlive it.
#ifndef SEMSHARE_STORAGE_BYTES_H_
#define SEMSHARE_STORAGE_BYTES_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "storage/ids.h"

namespace semshare {

class ByteWriter {
 public:
  void U8(uint8_t value) { bytes_.push_back(static_cast<char>(value)); }
  void U16(uint16_t value) { Integer(value, 2); }
  void U32(uint32_t value) { Integer(value, 4); }
  void U64(uint64_t value) { Integer(value, 8); }
  void I64(int64_t value) { Integer(static_cast<uint64_t>(value), 8); }
  void Id(const Id128& id) { bytes_ += id.ToBytes(); }
  void Raw(std::string_view value) { bytes_ += value; }
  // A length of 4 bytes, then the bytes.
  void String(std::string_view value) {
    U32(static_cast<uint32_t>(value.size()));
    Raw(value);
  }
  void Reserve(size_t bytes) { bytes_.reserve(bytes); }

  std::string& bytes() { return bytes_; }

 private:
  void Integer(uint64_t value, int bytes) {
    for (int i = 0; i < bytes; ++i) bytes_.push_back(static_cast<char>(value >> (8 * i)));
  }

  std::string bytes_;
};

// Reads past the end give zeros and make ok() false for good, so that a caller may check once.
class ByteReader {
 public:
  explicit ByteReader(std::string_view bytes) : bytes_(bytes) {}

  bool ok() const { return ok_; }
  size_t remaining() const { return bytes_.size() - position_; }

  uint8_t U8() { return static_cast<uint8_t>(Integer(1)); }
  uint16_t U16() { return static_cast<uint16_t>(Integer(2)); }
  uint32_t U32() { return static_cast<uint32_t>(Integer(4)); }
  uint64_t U64() { return Integer(8); }
  int64_t I64() { return static_cast<int64_t>(Integer(8)); }
  Id128 Id() {
    const std::string_view raw = Raw(16);
    return raw.size() == 16 ? Id128::FromBytes(raw) : Id128{};
  }
  std::string_view Raw(size_t bytes) {
    if (!Take(bytes)) return {};
    return bytes_.substr(position_ - bytes, bytes);
  }
  std::string_view String() { return Raw(U32()); }
  // A count of 4 bytes for elements of at least `element_bytes` each. A count that the rest of the
  // bytes can not hold fails here, before anybody allocates for it.
  uint32_t Count(size_t element_bytes) {
    const uint32_t count = U32();
    if (count <= remaining() / element_bytes) return count;
    ok_ = false;
    return 0;
  }

 private:
  bool Take(size_t bytes) {
    if (!ok_ || bytes > remaining()) {
      ok_ = false;
      return false;
    }
    position_ += bytes;
    return true;
  }
  uint64_t Integer(int bytes) {
    if (!Take(static_cast<size_t>(bytes))) return 0;
    uint64_t value = 0;
    for (int i = 0; i < bytes; ++i) {
      const auto byte = static_cast<uint8_t>(bytes_[position_ - static_cast<size_t>(bytes - i)]);
      value |= static_cast<uint64_t>(byte) << (8 * i);
    }
    return value;
  }

  std::string_view bytes_;
  size_t position_ = 0;
  bool ok_ = true;
};

}  // namespace semshare

#endif  // SEMSHARE_STORAGE_BYTES_H_
