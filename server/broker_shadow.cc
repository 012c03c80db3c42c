// Shadow checks: what workers find when they run a reuse again in full, and what is made of it.
#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/base/status_macros.h"
#include "server/broker.h"

namespace semshare {
namespace {

// KL is a sum of many terms of both signs: exactly equal distributions may come out just below 0.
constexpr double kRounding = 1e-6;
// Any larger distance is as bad as this one. A bound keeps sums and the histogram finite.
constexpr double kLargestKl = 1e6;

absl::Status CheckMatchKind(ResultKind kind) {
  if (kind >= ResultKind::kExactPrefix && kind <= ResultKind::kSemShareKv) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("kind: ", static_cast<int>(kind), " is no kind of match"));
}

}  // namespace

absl::StatusOr<ShadowMonitor::Verdict> Broker::ReportShadowCheck(std::string_view tenant,
                                                                 const ShadowCheck& check) {
  SEMSHARE_ASSIGN_OR_RETURN(const ModelPtr model, models_.Find(tenant, check.model));
  SEMSHARE_RETURN_IF_ERROR(CheckMatchKind(check.kind));
  if (!std::isfinite(check.kl_first) || check.kl_first < -kRounding) {
    return absl::InvalidArgumentError("kl_first: must be finite and not negative");
  }
  const double kl = std::clamp(check.kl_first, 0.0, kLargestKl);
  const ShadowMonitor::Verdict verdict =
      shadow_.Report(model->ns, check.kind, kl, check.same_token, now_ms());
  // Deleted meanwhile: whoever deletes a model forgets its checks after it, and so does this.
  if (models_.FindByNamespace(model->ns) == nullptr) shadow_.Forget(model->ns);
  ++metrics_.shadow_checks;
  if (!check.same_token) ++metrics_.shadow_disagreements;
  if (verdict.newly_disabled) ++metrics_.shadow_switch_offs;
  metrics_.shadow_kl.Observe(kl);
  return verdict;
}

std::vector<ShadowEntry> Broker::ShadowStats(std::string_view tenant) const {
  std::vector<ShadowEntry> entries;
  const int64_t now = now_ms();
  for (const ModelPtr& model : models_.List(tenant)) {
    for (const auto& [kind, figures] : shadow_.Figures(model->ns, now)) {
      entries.push_back({model->info.fingerprint, kind, figures});
    }
  }
  return entries;
}

absl::StatusOr<int> Broker::ResetShadow(std::string_view tenant, std::string_view fingerprint,
                                        std::optional<ResultKind> kind) {
  if (kind.has_value()) SEMSHARE_RETURN_IF_ERROR(CheckMatchKind(*kind));
  SEMSHARE_ASSIGN_OR_RETURN(const ModelPtr model, ResolveModel(tenant, fingerprint));
  if (!kind.has_value()) return shadow_.Forget(model->ns);
  return shadow_.Forget(model->ns, *kind) ? 1 : 0;
}

}  // namespace semshare
