#include "storage/chunk_io.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>

#include "kernels/base/status_macros.h"
#include "storage/arena.h"

namespace semshare {
namespace {

// A chunk's bytes are copied from zeros of this size, piece by piece.
constexpr int64_t kZeroBytes = int64_t{1} << 20;
// Room for the header of the largest record, above the staging that the options ask for.
constexpr int64_t kHeaderRoom = 4096;

int64_t AlignUp(int64_t value) {
  return (value + DiskStaging::kAlignment - 1) / DiskStaging::kAlignment * DiskStaging::kAlignment;
}

// In staging the payload is aligned and its header ends right before it.
int64_t PayloadPosition(int64_t payload_bytes) { return AlignUp(RecordHeaderBytes(payload_bytes)); }

int64_t StagedBytes(int64_t payload_bytes) {
  return PayloadPosition(payload_bytes) + AlignUp(payload_bytes);
}

}  // namespace

absl::StatusOr<std::unique_ptr<ChunkIo>> ChunkIo::Create(const ChunkStoreOptions& options,
                                                         Backend* backend, DiskTier* disk) {
  const int64_t arena_bytes = options.device_memory_bytes / kSuperblockBytes * kSuperblockBytes;
  const int64_t staging_bytes = AlignUp(options.staging_bytes) + kHeaderRoom;
  SEMSHARE_ASSIGN_OR_RETURN(Buffer arena, backend->Allocate(MemoryKind::kDevice, arena_bytes));
  SEMSHARE_ASSIGN_OR_RETURN(Buffer staging, backend->Allocate(MemoryKind::kHost, staging_bytes));
  SEMSHARE_ASSIGN_OR_RETURN(Buffer zeros, backend->Allocate(MemoryKind::kHost, kZeroBytes));
  std::memset(zeros.span().host(), 0, static_cast<size_t>(kZeroBytes));
  return std::unique_ptr<ChunkIo>(
      new ChunkIo(options, backend, disk, std::move(arena), std::move(staging), std::move(zeros)));
}

ChunkIo::ChunkIo(const ChunkStoreOptions& options, Backend* backend, DiskTier* disk, Buffer arena,
                 Buffer staging, Buffer zeros)
    : backend_(backend),
      disk_(disk),
      lane_timeout_(absl::Milliseconds(options.lane_timeout_ms)),
      arena_(std::move(arena)),
      staging_memory_(std::move(staging)),
      zeros_(std::move(zeros)),
      staging_(staging_memory_.span()) {}

absl::Status ChunkIo::RunCopies(absl::Span<const Copy> copies) {
  if (copies.empty()) return absl::OkStatus();
  SEMSHARE_ASSIGN_OR_RETURN(Lane lane, backend_->AcquireLane(lane_timeout_));
  absl::Status status;
  for (const Copy& copy : copies) {
    status = backend_->EnqueueCopy(lane, copy.destination, copy.source);
    if (!status.ok()) break;
  }
  // What was queued before a failure must be over too: both ends are reused after this returns. So
  // a Record that fails is tried once more; when that fails too, the device is gone with its queue.
  absl::StatusOr<Event> event = backend_->Record(lane);
  if (!event.ok()) {
    status.Update(event.status());
    event = backend_->Record(lane);
  }
  status.Update(event.ok() ? event->Wait() : event.status());
  return status;
}

size_t ChunkIo::GroupEnd(absl::Span<const ChunkTransfer> chunks, size_t begin,
                         int64_t* bytes) const {
  // Half of staging at most, so that a load and a write can overlap.
  *bytes = StagedBytes(chunks[begin].record.payload_bytes);
  size_t end = begin + 1;
  for (; end < chunks.size(); ++end) {
    const int64_t more = *bytes + StagedBytes(chunks[end].record.payload_bytes);
    if (more > staging_.capacity() / 2) break;
    *bytes = more;
  }
  return end;
}

absl::Status ChunkIo::Write(absl::Span<const ChunkTransfer> chunks) {
  for (size_t begin = 0; begin < chunks.size();) {
    int64_t staging_bytes = 0;
    const size_t end = GroupEnd(chunks, begin, &staging_bytes);
    SEMSHARE_RETURN_IF_ERROR(WriteGroup(chunks.subspan(begin, end - begin), staging_bytes));
    begin = end;
  }
  return absl::OkStatus();
}

absl::Status ChunkIo::WriteGroup(absl::Span<const ChunkTransfer> chunks, int64_t staging_bytes) {
  const StagingRange range = staging_.Acquire(staging_bytes);
  std::vector<Copy> copies;
  int64_t position = 0;
  for (const ChunkTransfer& chunk : chunks) {
    const int64_t bytes = chunk.record.payload_bytes;
    copies.push_back({range.span().Sub(position + PayloadPosition(bytes), bytes),
                      arena().Sub(chunk.offset, bytes)});
    position += StagedBytes(bytes);
  }
  SEMSHARE_RETURN_IF_ERROR(RunCopies(copies));
  std::vector<DiskEntry> entries;
  for (size_t i = 0; i < chunks.size(); ++i) {
    const RecordInfo& record = chunks[i].record;
    const int64_t header_bytes = RecordHeaderBytes(record.payload_bytes);
    char* payload = reinterpret_cast<char*>(copies[i].destination.host());
    WriteRecordHeader(record, payload, payload - header_bytes);
    entries.push_back({record.id.ToBytes(),
                       std::string_view(payload - header_bytes,
                                        static_cast<size_t>(header_bytes + record.payload_bytes))});
  }
  return disk_->Put(DiskTable::kChunks, entries);
}

std::vector<absl::Status> ChunkIo::Read(absl::Span<const ChunkTransfer> chunks) {
  std::vector<absl::Status> statuses(chunks.size());
  for (size_t begin = 0; begin < chunks.size();) {
    int64_t staging_bytes = 0;
    const size_t end = GroupEnd(chunks, begin, &staging_bytes);
    ReadGroup(chunks.subspan(begin, end - begin), staging_bytes,
              absl::MakeSpan(statuses).subspan(begin, end - begin));
    begin = end;
  }
  return statuses;
}

void ChunkIo::ReadGroup(absl::Span<const ChunkTransfer> chunks, int64_t staging_bytes,
                        absl::Span<absl::Status> statuses) {
  const StagingRange range = staging_.Acquire(staging_bytes);
  std::vector<Copy> copies;
  int64_t position = 0;
  for (size_t i = 0; i < chunks.size(); ++i) {
    const RecordInfo& record = chunks[i].record;
    const MemorySpan staged = range.span().Sub(position, record.payload_bytes);
    position += StagedBytes(record.payload_bytes);
    statuses[i] = disk_->Get(
        DiskTable::kChunks, record.id.ToBytes(), [&](std::string_view value) -> absl::Status {
          SEMSHARE_ASSIGN_OR_RETURN(const std::string_view payload, VerifyRecord(value, record));
          std::memcpy(staged.host(), payload.data(), payload.size());
          return absl::OkStatus();
        });
    if (!statuses[i].ok()) continue;
    copies.push_back({arena().Sub(chunks[i].offset, record.payload_bytes), staged});
  }
  const absl::Status copied = RunCopies(copies);
  for (absl::Status& status : statuses) status.Update(copied);
}

absl::Status ChunkIo::Zero(int64_t offset, int64_t bytes) {
  std::vector<Copy> copies;
  for (int64_t done = 0; done < bytes; done += kZeroBytes) {
    const int64_t piece = std::min(kZeroBytes, bytes - done);
    copies.push_back({arena().Sub(offset + done, piece), zeros_.span().Sub(0, piece)});
  }
  return RunCopies(copies);
}

}  // namespace semshare
