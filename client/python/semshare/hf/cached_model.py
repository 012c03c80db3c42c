"""A Transformers model with a semantic KV cache in front of its prefill."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch

from semshare.hf.broker import KIND_VALUES, KINDS, MODES, PRESETS, Broker, BrokerError
from semshare.hf.cache import KvCache, PromptCache
from semshare.hf.capture import CapturePolicy, Captures
from semshare.hf.costs import PrefillCosts, TimedCache
from semshare.hf.decode import continue_greedily
from semshare.hf.errors import ApproximateCacheError, MalformedAnswer, SigmaExceeded
from semshare.hf.guard import TokenGuard
from semshare.hf.importance import question_importance
from semshare.hf.kinds import FULL
from semshare.hf.layers import LayerDriver
from semshare.hf.pool import KvPool
from semshare.hf.report import GenerateResult, PrefillReport, PrefillResult, StoreResult
from semshare.hf.retention import RetainedCache
from semshare.hf.reuse import DEFAULT_QUESTION_TOKENS, Reuse, ReuseOutcome
from semshare.hf.selftest import check_selective
from semshare.hf.shadow import ShadowChecks, ShadowPolicy
from semshare.hf.spec import ModelDescription, describe
from semshare.hf.turns import Turns
from semshare.hf.upload import upload_rows
from semshare.v1 import cache_broker_pb2 as pb

_LOG = logging.getLogger(__name__)

Ids = Sequence[int] | torch.Tensor

# Rows that are not there after this time may still come before a full prefill would have ended.
_TRANSFER_FLOOR_S = 2.0


class CachedModel:
    """`model` with prefills that reuse what the broker holds.

    Construction reads the model's weights and rotary tables, proves that selected tokens can be
    computed alone, and registers the model; `NotSupportedError` says what stands in the way of a
    model. A broker that does not answer is no error: registration is tried again with later calls.

    Thread-safe: calls take turns. While a call runs, nobody else may use `model`; with a `shadow`
    policy the model works between calls, too, and a call that comes then waits for one layer.

    `lookup_timeout_s` bounds `FindMatch`. A transfer may take as long as the full prefill that it
    saves, by what was observed, but at least 2 s; `transfer_timeout_s` is the upper bound, and the
    bound of uploads, and that of transfers before anything was observed.

    With a `capture` policy, prefills are stored from the background: nobody waits for the upload,
    and the model does no work for it, so such references carry no importance.

    With a `guard`, changed numbers, names, dates, negations and identifiers are computed whole.
    Mode `fuzzy` needs one.

    With a `shadow` policy, reuses are compared with full prefills while no call runs, and the
    broker is told: it stops offering a kind of match that misses its target.

    `counters` counts results by kind and failures as `fallback:REASON`, `miss:REASON`,
    `store:REASON`, `register:REASON`, `release:REASON`, captures as `Captures` says, and checks as
    `ShadowChecks` does.
    """

    def __init__(
        self,
        model: Any,
        client: Broker,
        *,
        name: str | None = None,
        adapter: str = "",
        lookup_timeout_s: float = 2.0,
        transfer_timeout_s: float = 30.0,
        capture: CapturePolicy | None = None,
        guard: TokenGuard | None = None,
        shadow: ShadowPolicy | None = None,
    ) -> None:
        model.eval()
        self.model = model
        self.client = client
        self.counters: Counter[str] = Counter()
        self.lookup_timeout_s = lookup_timeout_s
        self.transfer_timeout_s = transfer_timeout_s
        self._guard = guard
        self._driver = LayerDriver(model)
        label = name or str(getattr(model, "name_or_path", "")) or type(model).__name__
        self.description: ModelDescription = describe(
            self._driver, name=label[:256], adapter=adapter
        )
        self._shapes = self.description.shapes
        self._pool = KvPool()
        self._costs = PrefillCosts()
        check_selective(self._driver, self._shapes)
        self._turns = Turns()
        self._registered = False  # Guarded by _turns.
        # One thread for what need not delay anybody: releases and late registration.
        self._background = ThreadPoolExecutor(1, thread_name_prefix="semshare-background")
        self._registering: Future[str] | None = None
        self._captures = None
        if capture is not None:
            self._captures = Captures(capture, self._put_captured, self.counters)
        self._shadow = None
        if shadow is not None:
            self._shadow = ShadowChecks(
                shadow, self._driver, self._turns, self._report_check, self.counters
            )
        self._register()

    @property
    def fingerprint(self) -> bytes:
        """Identity of the model at the broker, 32 bytes."""
        return self.description.spec.fingerprint

    def close(self) -> None:
        """Ends shadow checks and waits for captures and releases that are under way. The client
        stays open, and calls still work: what the background would have released is then released
        at once, and nothing is checked or captured any more."""
        if self._shadow is not None:
            self._shadow.close()
        if self._captures is not None:
            self._captures.close()
        self._background.shutdown(wait=True)

    # Storing.

    def store(
        self,
        ids: Ids,
        cache: PromptCache | None = None,
        *,
        ttl_s: float = 0.0,
        priority: int = 0,
        alias: str = "",
        durable: bool = True,
    ) -> StoreResult:
        """Stores a prompt's KV as a reference and uploads what the broker lacks of it.

        `cache` (from `prefill` or `generate`) saves the prefill; it must be exact, else
        `ApproximateCacheError`, and may be shorter than `ids`: the rest is computed. A broker's
        failure is told in the result's `error` and counted.
        """
        began = time.perf_counter()
        tensor = self._tensor(ids)
        with self._turns:
            source = self._exact_rows(tensor, cache)
            importance = question_importance(self._driver, tensor, source, DEFAULT_QUESTION_TOKENS)
        request = self._put_request(
            tensor.tolist(), ttl_s=ttl_s, priority=priority, alias=alias, durable=durable
        )
        request.importance.extend(importance.tolist())
        result = self._put(request, source)
        result.seconds = time.perf_counter() - began
        return result

    def _put_captured(
        self, ids: Sequence[int], source: KvCache, policy: CapturePolicy
    ) -> StoreResult:
        if not self._registered:  # Registration would keep prefills waiting; a later one tries.
            return StoreResult(tokens=len(ids), error="the model is not registered")
        request = self._put_request(
            ids, ttl_s=policy.ttl_s, priority=policy.priority, alias="", durable=policy.durable
        )
        return self._put(request, source)

    def _put_request(
        self, ids: Sequence[int], *, ttl_s: float, priority: int, alias: str, durable: bool
    ) -> Any:
        return pb.BeginPutRequest(
            model=self.fingerprint,
            token_ids=ids,
            ttl_ms=round(ttl_s * 1000),
            priority=priority,
            transport=pb.TRANSPORT_INLINE,
            durability=pb.DURABILITY_DISK if durable else pb.DURABILITY_MEMORY,
            alias=alias,
        )

    def _put(self, request: Any, source: KvCache) -> StoreResult:
        """Uploads what the broker lacks, in any thread: the model is not needed for it."""
        result = StoreResult(tokens=len(request.token_ids))
        try:
            if not self._registered:
                with self._turns:
                    self._require_registered()
            self._upload(request, source, result)
        except BrokerError as error:
            self._forget_model_if_lost(error)
            self.counters[f"store:{error.code}"] += 1
            result.error = str(error)
        return result

    def _upload(self, request: Any, source: KvCache, result: StoreResult) -> None:
        answer = self.client.begin_put(request, timeout_s=self.transfer_timeout_s)
        result.reference_id = answer.reference_id
        result.visible, result.durable = answer.visible, answer.durable
        if not answer.upload_id:
            return
        ranges = [(part.begin, part.end) for part in answer.missing]
        if any(begin >= end or end > source.tokens for begin, end in ranges):
            raise BrokerError("MALFORMED", "missing ranges outside the prompt")
        done = upload_rows(self.client, answer.upload_id, source, ranges)
        result.uploaded_tokens = sum(end - begin for begin, end in ranges)
        result.visible, result.durable = done.visible, done.durable

    def _exact_rows(self, ids: torch.Tensor, cache: PromptCache | None) -> KvCache:
        own = self._new_cache(len(ids))
        if cache is None:
            self._timed_full(ids, own)
            return own
        if not isinstance(cache, PromptCache):
            raise ApproximateCacheError(
                f"a {type(cache).__name__} does not tell whether its rows are exact"
            )
        if not cache.exact:
            raise ApproximateCacheError("the cache holds realigned rows: it is not exact")
        known = min(len(cache.ids), len(ids))
        if tuple(ids[:known].tolist()) != cache.ids[:known]:
            raise ValueError("the cache belongs to other tokens")
        if len(ids) == cache.source.tokens == cache.get_seq_length():
            return cache.source
        held = min(cache.get_seq_length(), len(ids))
        own.copy_rows_from(cache, held)
        if held < len(ids):
            rows = torch.arange(held, len(ids), device=ids.device)
            self._driver.run(ids, rows, own, want_logits=False)
        return own

    # Prefilling.

    def prefill(
        self,
        ids: Ids,
        preset: str = "auto",
        mode: str | None = None,
        kl_target: float = 0.0,
        question_tokens: int = 0,
        semsharekv: pb.SemShareKvOptions | None = None,
    ) -> PrefillResult:
        """Logits of the last token and the KV of all, with as little computed as the plan allows.

        `preset` and `mode` are the contract's names in lower case; preset `semsharekv` implies its
        mode. `kl_target` in nats, 0: the broker's. `question_tokens`: length of the question at
        the end, 0: 20. `semsharekv`: other numbers for that mode than the paper's. Raises only for
        wrong arguments; whatever the broker does, the answer is at worst the engine's own prefill,
        and `report` tells.

        Mode `semsharekv` evicts: its result is a `RetainedCache`, on which decoding goes on as on
        any other, one token at a time. Models with layers that are not full attention keep all.
        """
        if preset not in PRESETS or (mode is not None and mode not in MODES):
            raise ValueError(f"unknown preset '{preset}' or mode '{mode}'")
        if mode == "fuzzy" and self._guard is None:
            raise ValueError("mode 'fuzzy' needs a guard: CachedModel(guard=TokenGuard(tokenizer))")
        if mode is None:
            mode = "semsharekv" if preset == "semsharekv" else "token"
        if semsharekv is not None and mode != "semsharekv":
            raise ValueError(f"mode '{mode}' has no use for SemShareKvOptions")
        tensor = self._tensor(ids)
        began = time.perf_counter()
        report = PrefillReport(kind="miss", tokens=len(tensor), preset=preset)
        request = pb.FindMatchRequest(
            model=self.fingerprint,
            token_ids=tensor.tolist(),
            mode=MODES[mode],
            preset=PRESETS[preset],
            kl_target=kl_target,
            question_tokens=question_tokens,
        )
        if mode == "semsharekv":
            request.semsharekv.CopyFrom(semsharekv or pb.SemShareKvOptions())
            if any(kind.name != FULL for kind in self._driver.kinds):
                request.semsharekv.retain = False
        with self._turns:
            result = self._try_reuse(tensor, report, began, request)
            if result is None:
                result = self._full(tensor, report, began)
        self.counters[report.kind] += 1
        if report.fallback_reason:
            self.counters[f"{report.kind}:{report.fallback_reason}"] += 1
        if self._captures is not None:
            self._captures.offer(result)
        if self._shadow is not None:
            self._shadow.offer(result)
        return result

    def _try_reuse(
        self,
        ids: torch.Tensor,
        report: PrefillReport,
        began: float,
        request: Any,
    ) -> PrefillResult | None:
        cost = self._costs.message()
        if cost is not None:
            request.worker_cost.CopyFrom(cost)
        match = self._find(request, report)
        if match is None:
            return None
        reuse = Reuse(self._driver, self._shapes, self._pool, self.client, report, self._guard)
        outcome = None
        try:
            outcome = reuse.run(ids, match, self._transfer_limit_s(len(ids)))
        except BrokerError as error:
            self._fall_back(report, error.code)
        except MalformedAnswer as error:
            _LOG.warning("malformed answer of the broker: %s", error)
            self._fall_back(report, "MALFORMED")
        except SigmaExceeded:
            self._fall_back(report, "sigma")
        except Exception as error:  # Whatever a bad answer broke must not break the worker.
            _LOG.exception("reuse failed")
            self._fall_back(report, f"internal:{type(error).__name__}")
        report.recomputed_share = reuse.token_layers / (len(ids) * len(self._shapes))
        result = None
        if outcome is not None:
            report.kind = KINDS.get(match.kind, "edited")
            report.matched_tokens = match.matched_tokens
            result = self._result(ids, outcome, report, began)
            report.overhead_s = time.perf_counter() - began - report.compute_s
            self._costs.saw_transfer(report.transfer_bytes, report.transfer_s)
        self._release(match.lease_id, report, reuse.token_layers)
        return result

    def _find(self, request: Any, report: PrefillReport) -> Any:
        """The match, or None with `report` saying why there is none."""
        began = time.perf_counter()
        try:
            if not self._registered:
                self._register_later()
                self._fall_back(report, "not_registered")
                return None
            answer = self.client.find_match(request, timeout_s=self.lookup_timeout_s)
        except BrokerError as error:
            self._forget_model_if_lost(error)
            self._fall_back(report, error.code)
            return None
        finally:
            report.lookup_s = time.perf_counter() - began
        kind = answer.WhichOneof("result")
        if kind == "match":
            report.preset = _preset_name(answer.match.plan.preset) or report.preset
            return answer.match
        if kind != "no_match":
            self._fall_back(report, "MALFORMED")
            return None
        reason = pb.NoMatchReason.Name(answer.no_match.reason)
        report.fallback_reason = reason.removeprefix("NO_MATCH_REASON_").lower()
        return None

    def _fall_back(self, report: PrefillReport, reason: str) -> None:
        report.kind = "fallback"
        report.fallback_reason = reason

    def _full(self, ids: torch.Tensor, report: PrefillReport, began: float) -> PrefillResult:
        """The engine's own prefill, after whatever `report` tells has failed."""
        driver = self._driver
        cache = TimedCache(self._shapes, len(ids), driver.dtype, driver.device, self._pool)
        logits, seconds = self._timed_full(ids, cache)
        seconds -= cache.copied_s
        if report.kind == "fallback" and report.recomputed_share < 1.0:
            report.recomputed_share += 1.0
        report.compute_s += seconds
        result = self._result(ids, ReuseOutcome(logits, cache, exact=True), report, began)
        # What an abandoned reuse has computed would not have been computed without it.
        report.overhead_s = time.perf_counter() - began - seconds
        return result

    def _result(
        self,
        ids: torch.Tensor,
        outcome: ReuseOutcome,
        report: PrefillReport,
        began: float,
    ) -> PrefillResult:
        report.ttft_s = time.perf_counter() - began
        numbers = tuple(ids.tolist())
        rows = outcome.cache
        rows.rows = None
        cache: PromptCache | RetainedCache
        if outcome.retained is None:
            cache = PromptCache(rows, self.model.config, ids=numbers, exact=outcome.exact)
        else:
            cache = RetainedCache(rows, outcome.retained, ids=numbers)
        return PrefillResult(numbers, outcome.logits, cache, report)

    def generate(self, ids: Ids, max_new_tokens: int, **prefill: Any) -> GenerateResult:
        """Greedy continuation: `prefill`, then the model's own `generate` over its cache."""
        with self._turns:
            first = self.prefill(ids, **prefill)
            following = continue_greedily(self.model, first, max_new_tokens)
        sequence = following[0].tolist()
        return GenerateResult(sequence, sequence[len(first.ids) :], first.cache, first.report)

    # Parts.

    def _tensor(self, ids: Ids) -> torch.Tensor:
        """`[tokens]` int64 on the model's device; `ValueError` for ids that are no prompt."""
        tensor = torch.as_tensor(ids, dtype=torch.int64)
        if tensor.ndim == 2 and tensor.shape[0] == 1:
            tensor = tensor[0]
        if tensor.ndim != 1 or len(tensor) == 0:
            raise ValueError("ids must be one non-empty sequence of token ids")
        vocab = self.description.spec.vocab_size
        if int(tensor.min()) < 0 or int(tensor.max()) >= vocab:
            raise ValueError(f"token ids must lie in [0, {vocab})")
        return tensor.to(self._driver.device)

    def _new_cache(self, tokens: int) -> KvCache:
        driver = self._driver
        return KvCache(self._shapes, tokens, driver.dtype, driver.device, self._pool)

    def _timed_full(self, ids: torch.Tensor, cache: KvCache) -> tuple[torch.Tensor, float]:
        began = time.perf_counter()
        logits = self._driver.full(ids, cache)
        seconds = time.perf_counter() - began
        self._costs.saw_prefill(len(ids), seconds)
        return logits, seconds

    def _release(self, lease_id: bytes, report: PrefillReport, token_layers: int) -> None:
        """Gives the lease back from the background: nobody waits for it."""
        outcome = pb.MatchOutcome(
            kind=KIND_VALUES[report.kind],
            recomputed_token_layers=token_layers,
            fallback_reason=report.fallback_reason[:64],
        )
        full = self._costs.prefill_seconds(report.tokens)
        if full is not None and report.kind != "fallback":
            outcome.seconds_saved = full - report.ttft_s
        self._later(self._release_now, lease_id, outcome)

    def _later(self, task: Callable[..., Any], *arguments: Any) -> Future[Any] | None:
        """Runs a task in the background; here and now once that is closed, or at its end."""
        try:
            return self._background.submit(task, *arguments)
        except RuntimeError:  # closed, or the interpreter ends
            task(*arguments)
            return None

    def _transfer_limit_s(self, tokens: int) -> float:
        """How long waiting for rows can pay."""
        full = self._costs.prefill_seconds(tokens)
        if full is None:
            return self.transfer_timeout_s
        return min(self.transfer_timeout_s, max(full, _TRANSFER_FLOOR_S))

    def _release_now(self, lease_id: bytes, outcome: Any) -> None:
        try:
            self.client.release(lease_id, outcome)
        except BrokerError as error:
            self.counters[f"release:{error.code}"] += 1

    def _report_check(self, check: Any) -> None:
        check.model = self.fingerprint
        try:
            self.client.report_shadow_check(check, timeout_s=self.lookup_timeout_s)
        except BrokerError as error:
            self._forget_model_if_lost(error)
            raise

    # Registration.

    def _require_registered(self) -> None:
        if not self._registered:
            error = self._register()
            if error is not None:
                raise error

    def _register(self) -> BrokerError | None:
        """Registers the model now; the error, counted, if the broker refuses or is away."""
        spec = self.description.spec
        try:
            known = self.client.get_model(spec.fingerprint, timeout_s=self.lookup_timeout_s)
            table = None if known else self.description.embedding_table()
            self.client.register_model(spec, table, None, self.description.probes)
        except BrokerError as error:
            self.counters[f"register:{error.code}"] += 1
            _LOG.warning("the model is not registered: %s", error)
            return error
        self._registered = True
        return None

    def _register_later(self) -> None:
        if self._registering is None or self._registering.done():
            self._registering = self._later(lambda: str(self._register() or ""))

    def _forget_model_if_lost(self, error: BrokerError) -> None:
        """A broker that lost its data does not know the model any more."""
        if error.code == "NOT_FOUND":
            self._registered = False


def _preset_name(value: int) -> str:
    return next((name for name, number in PRESETS.items() if number == value), "")
