// Messages and rows that several tests use: one small model, one match of it.
// Thread-safe: pure functions. Ownership: values.
#ifndef SEMSHARE_TESTS_CLIENT_CPP_SAMPLES_H_
#define SEMSHARE_TESTS_CLIENT_CPP_SAMPLES_H_

#include <string>
#include <vector>

#include "client/cpp/kv_rows.h"
#include "semshare/v1/cache_broker.pb.h"

namespace semshare::client::testing {

inline std::string Id(char c) { return std::string(16, c); }
inline std::string Fingerprint(char c) { return std::string(32, c); }

// A byte of a row that tells where it belongs.
inline char RowByte(uint32_t layer, uint32_t plane, int64_t row, int64_t byte) {
  return static_cast<char>(layer * 101 + plane * 53 + row * 7 + byte);
}

// Rows [begin, begin + count) of a plane, [row][byte].
inline std::string RowBytes(const RowRange& range, int64_t row_bytes) {
  std::string bytes;
  for (uint32_t row = range.begin; row < range.begin + range.count; ++row) {
    for (int64_t i = 0; i < row_bytes; ++i) {
      bytes.push_back(RowByte(range.layer, range.plane, row, i));
    }
  }
  return bytes;
}

inline v1::ReadKvFrame FrameOf(const RowRange& range, int64_t row_bytes) {
  v1::ReadKvFrame frame;
  frame.set_layer(range.layer);
  frame.set_plane(range.plane);
  frame.set_first_row(range.begin);
  frame.set_rows(range.count);
  frame.set_payload(RowBytes(range, row_bytes));
  return frame;
}

// All frames of `rows` rows of a shape, at most `rows_per_frame` each.
inline std::vector<std::string> FramesOf(const KvShape& shape, uint32_t rows,
                                         uint32_t rows_per_frame) {
  std::vector<std::string> frames;
  for (uint32_t layer = 0; layer < shape.row_bytes.size(); ++layer) {
    for (uint32_t plane = 0; plane < shape.row_bytes[layer].size(); ++plane) {
      for (uint32_t row = 0; row < rows; row += rows_per_frame) {
        const RowRange range = {layer, plane, row, std::min(rows_per_frame, rows - row)};
        frames.push_back(FrameOf(range, shape.row_bytes[layer][plane]).SerializeAsString());
      }
    }
  }
  return frames;
}

// A match of 10 of the target's 16 tokens with two references.
inline v1::FindMatchResponse SampleMatch() {
  v1::FindMatchResponse response;
  v1::Match* match = response.mutable_match();
  match->set_lease_id(Id('L'));
  match->set_lease_timeout_ms(30000);
  match->set_kind(v1::RESULT_KIND_SHIFTED);
  for (const char c : {'a', 'b'}) {
    v1::MatchedReference* reference = match->add_references();
    reference->set_reference_id(Id(c));
    reference->set_tokens(12);
  }
  match->mutable_references(0)->set_alias("doc");
  v1::Segment* segment = match->add_segments();
  segment->set_target_begin(2);
  segment->set_source_begin(0);
  segment->set_tokens(6);
  segment->set_kind(v1::SEGMENT_KIND_EXACT);
  segment = match->add_segments();
  segment->set_target_begin(9);
  segment->set_reference(1);
  segment->set_source_begin(8);
  segment->set_tokens(4);
  segment->set_kind(v1::SEGMENT_KIND_TOKEN);
  match->set_matched_tokens(10);
  v1::RecomputePlan* plan = match->mutable_plan();
  plan->set_preset(v1::PRESET_HEADS);
  for (const auto& [begin, end] : {std::pair{0u, 2u}, {8u, 9u}, {13u, 16u}}) {
    v1::TokenRange* range = plan->add_mandatory();
    range->set_begin(begin);
    range->set_end(end);
  }
  plan->set_question_tokens(3);
  match->mutable_predicted()->set_recomputed_share(0.375);
  match->mutable_predicted()->set_transfer_bytes(2048);
  return response;
}

inline v1::FindMatchRequest SampleTarget() {
  v1::FindMatchRequest request;
  request.set_model(Fingerprint('m'));
  for (uint32_t i = 0; i < 16; ++i) request.add_token_ids(i);
  return request;
}

}  // namespace semshare::client::testing

#endif  // SEMSHARE_TESTS_CLIENT_CPP_SAMPLES_H_
