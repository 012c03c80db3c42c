#include "tests/client/cpp/scripted_broker.h"

#include <grpcpp/ext/health_check_service_server_builder_option.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>

#include <chrono>
#include <utility>

#include "absl/strings/numbers.h"
#include "kernels/base/mutex.h"
#include "proto/rpc_status.h"
#include "semshare/v1/cache_admin.grpc.pb.h"
#include "semshare/v1/cache_broker.grpc.pb.h"

namespace semshare::client::testing {
namespace {

// What both services share.
struct Stage {
  BrokerScript script;

  mutable Mutex mutex;
  mutable CondVar changed;
  BrokerRecord record ABSL_GUARDED_BY(mutex);

  template <typename Change>
  void Record(const Change& change) {
    MutexLock lock(&mutex);
    change(&record);
    changed.NotifyAll();
  }
};

template <typename Response>
grpc::Status Answer(const absl::StatusOr<Response>& scripted, Response* response) {
  if (scripted.ok()) *response = *scripted;
  return ToGrpcStatus(scripted.status());
}

// Sends scripted messages as they are.
class MessageWriter : public grpc::ServerWriteReactor<grpc::ByteBuffer> {
 public:
  explicit MessageWriter(Stage* stage) : stage_(stage) { Next(); }

  void OnWriteDone(bool ok) override {
    if (ok) {
      Next();
    } else {
      Finish(grpc::Status::CANCELLED);
    }
  }

  void OnCancel() override {
    stage_->Record([](BrokerRecord* record) { ++record->reads_cancelled; });
    if (hanging_) Finish(grpc::Status::CANCELLED);
  }

  void OnDone() override { delete this; }

 private:
  void Next() {
    if (next_ < stage_->script.read_messages.size()) {
      const std::string& message = stage_->script.read_messages[next_++];
      // In two slices, the cut in the middle of the small fields.
      const size_t cut = std::min<size_t>(message.size(), 3);
      const grpc::Slice slices[] = {grpc::Slice(message.data(), cut),
                                    grpc::Slice(message.data() + cut, message.size() - cut)};
      buffer_ = grpc::ByteBuffer(slices, 2);
      StartWrite(&buffer_);
    } else if (stage_->script.read_hangs) {
      hanging_ = true;
    } else {
      Finish(ToGrpcStatus(stage_->script.read_status));
    }
  }

  Stage* const stage_;
  size_t next_ = 0;
  std::atomic<bool> hanging_{false};
  grpc::ByteBuffer buffer_;
};

class BrokerService
    : public v1::CacheBroker::WithRawCallbackMethod_ReadKv<v1::CacheBroker::Service> {
 public:
  explicit BrokerService(Stage* stage) : stage_(stage) {}

  grpc::Status GetServerInfo(grpc::ServerContext*, const v1::GetServerInfoRequest*,
                             v1::GetServerInfoResponse* response) override {
    *response = stage_->script.info;
    return grpc::Status::OK;
  }

  grpc::Status GetModel(grpc::ServerContext*, const v1::GetModelRequest*,
                        v1::GetModelResponse* response) override {
    response->set_known(stage_->script.model_known);
    return grpc::Status::OK;
  }

  grpc::Status RegisterModel(grpc::ServerContext*,
                             grpc::ServerReader<v1::RegisterModelFrame>* reader,
                             v1::RegisterModelResponse* response) override {
    v1::RegisterModelFrame frame;
    while (reader->Read(&frame)) {
      stage_->Record([&](BrokerRecord* record) { record->model_frames.push_back(frame); });
    }
    response->set_created(true);
    return ToGrpcStatus(stage_->script.register_status);
  }

  grpc::Status BeginPut(grpc::ServerContext*, const v1::BeginPutRequest* request,
                        v1::BeginPutResponse* response) override {
    stage_->Record([&](BrokerRecord* record) { record->puts.push_back(*request); });
    return Answer(stage_->script.begin_put, response);
  }

  grpc::Status WriteKv(grpc::ServerContext*, grpc::ServerReader<v1::WriteKvFrame>* reader,
                       v1::WriteKvResponse* response) override {
    v1::WriteKvFrame frame;
    bool committed = false;
    for (size_t i = 0; i < stage_->script.write_frames_at_most && reader->Read(&frame); ++i) {
      committed = frame.commit();
      stage_->Record([&](BrokerRecord* record) { record->writes.push_back(frame); });
    }
    stage_->Record([&](BrokerRecord* record) { record->write_dropped = !committed; });
    return Answer(stage_->script.write, response);
  }

  grpc::Status FindMatch(grpc::ServerContext*, const v1::FindMatchRequest* request,
                         v1::FindMatchResponse* response) override {
    stage_->Record([&](BrokerRecord* record) { record->finds.push_back(*request); });
    return Answer(stage_->script.find, response);
  }

  grpc::ServerWriteReactor<grpc::ByteBuffer>* ReadKv(grpc::CallbackServerContext*,
                                                     const grpc::ByteBuffer* request) override {
    grpc::ByteBuffer copy(*request);
    v1::ReadKvRequest parsed;
    grpc::SerializationTraits<v1::ReadKvRequest>::Deserialize(&copy, &parsed);
    stage_->Record([&](BrokerRecord* record) { record->reads.push_back(parsed); });
    return new MessageWriter(stage_);
  }

  grpc::Status ReleaseMatch(grpc::ServerContext*, const v1::ReleaseMatchRequest* request,
                            v1::ReleaseMatchResponse*) override {
    stage_->Record([&](BrokerRecord* record) { record->releases.push_back(*request); });
    return ToGrpcStatus(stage_->script.release_status);
  }

  grpc::Status ReportShadowCheck(grpc::ServerContext*, const v1::ReportShadowCheckRequest* request,
                                 v1::ReportShadowCheckResponse* response) override {
    stage_->Record([&](BrokerRecord* record) { record->shadow_checks.push_back(*request); });
    response->set_disabled(true);
    return grpc::Status::OK;
  }

 private:
  Stage* const stage_;
};

class AdminService : public v1::CacheAdmin::Service {
 public:
  explicit AdminService(Stage* stage) : stage_(stage) {}

  grpc::Status ListModels(grpc::ServerContext*, const v1::ListModelsRequest*,
                          v1::ListModelsResponse* response) override {
    *response = stage_->script.models;
    return grpc::Status::OK;
  }

  grpc::Status Pin(grpc::ServerContext*, const v1::PinRequest* request, v1::PinResponse*) override {
    stage_->Record([&](BrokerRecord* record) { record->pins.push_back(*request); });
    return Knows(request->reference());
  }

  grpc::Status Delete(grpc::ServerContext*, const v1::DeleteRequest* request,
                      v1::DeleteResponse*) override {
    return Knows(request->reference());
  }

  grpc::Status List(grpc::ServerContext*, const v1::ListRequest* request,
                    v1::ListResponse* response) override {
    size_t page = 0;
    if (!request->page_token().empty() && !absl::SimpleAtoi(request->page_token(), &page)) {
      return {grpc::StatusCode::INVALID_ARGUMENT, "page_token"};
    }
    if (page < stage_->script.pages.size()) *response = stage_->script.pages[page];
    return grpc::Status::OK;
  }

  grpc::Status Describe(grpc::ServerContext*, const v1::DescribeRequest* request,
                        v1::DescribeResponse* response) override {
    *response = stage_->script.describe;
    return Knows(request->reference());
  }

  grpc::Status DeleteTenant(grpc::ServerContext*, const v1::DeleteTenantRequest* request,
                            v1::DeleteTenantResponse* response) override {
    if (!request->confirm()) return {grpc::StatusCode::INVALID_ARGUMENT, "confirm"};
    stage_->Record([](BrokerRecord* record) { ++record->deleted_tenants; });
    response->set_references(3);
    return grpc::Status::OK;
  }

  grpc::Status TrimByTime(grpc::ServerContext*, const v1::TrimByTimeRequest* request,
                          v1::TrimByTimeResponse* response) override {
    stage_->Record([&](BrokerRecord* record) { record->trims.push_back(*request); });
    response->set_references(2);
    return grpc::Status::OK;
  }

  grpc::Status Stats(grpc::ServerContext*, const v1::StatsRequest*,
                     v1::StatsResponse* response) override {
    *response = stage_->script.stats;
    return grpc::Status::OK;
  }

  grpc::Status ShadowStats(grpc::ServerContext*, const v1::ShadowStatsRequest*,
                           v1::ShadowStatsResponse* response) override {
    *response = stage_->script.shadow;
    return grpc::Status::OK;
  }

  grpc::Status ResetShadow(grpc::ServerContext*, const v1::ResetShadowRequest* request,
                           v1::ResetShadowResponse* response) override {
    stage_->Record([&](BrokerRecord* record) { record->shadow_resets.push_back(*request); });
    response->set_entries(2);
    return grpc::Status::OK;
  }

  grpc::Status Drain(grpc::ServerContext*, const v1::DrainRequest*, v1::DrainResponse*) override {
    stage_->Record([](BrokerRecord* record) { ++record->drains; });
    return grpc::Status::OK;
  }

 private:
  grpc::Status Knows(const v1::ReferenceName& name) {
    stage_->Record([&](BrokerRecord* record) { record->names.push_back(name); });
    return ToGrpcStatus(stage_->script.knows ? stage_->script.knows(name) : absl::OkStatus());
  }

  Stage* const stage_;
};

}  // namespace

struct ScriptedBroker::State {
  Stage stage;
  BrokerService broker{&stage};
  AdminService admin{&stage};
  std::string address;
  std::unique_ptr<grpc::Server> server;
};

ScriptedBroker::ScriptedBroker() : state_(std::make_unique<State>()) {
  grpc::EnableDefaultHealthCheckService(true);
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&state_->broker);
  builder.RegisterService(&state_->admin);
  state_->server = builder.BuildAndStart();
  state_->address = "127.0.0.1:" + std::to_string(port);
}

ScriptedBroker::~ScriptedBroker() { Stop(); }

const std::string& ScriptedBroker::address() const { return state_->address; }

BrokerScript& ScriptedBroker::script() { return state_->stage.script; }

BrokerRecord ScriptedBroker::record() const {
  MutexLock lock(&state_->stage.mutex);
  return state_->stage.record;
}

void ScriptedBroker::WaitFor(const std::function<bool(const BrokerRecord&)>& condition) const {
  const Stage& stage = state_->stage;
  MutexLock lock(&stage.mutex);
  while (!condition(stage.record)) stage.changed.Wait(&stage.mutex);
}

void ScriptedBroker::SetServing(bool serving) {
  state_->server->GetHealthCheckService()->SetServingStatus(serving);
}

void ScriptedBroker::Stop() { state_->server->Shutdown(std::chrono::system_clock::now()); }

}  // namespace semshare::client::testing
