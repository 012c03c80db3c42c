"""SmolLM2 over prompts of about 1,300 tokens: fidelity of reuse against its own full prefill.

With SEMSHARE_SEMSHARED set the broker is `semshared` with its gates as delivered, and nothing here
skips; without it, the oracle.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from local_broker import LocalBroker
from real_broker import BINARY, RealBroker

from semshare.hf import CachedModel, PrefillResult, load_model

DOCUMENT = Path("/usr/share/common-licenses/GPL-3")
UNRELATED = Path("/usr/share/common-licenses/Apache-2.0")
SHORT = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
LONG = (
    "<|im_start|>system\nYou are a careful legal assistant. You answer in plain English, you quote "
    "the document where that helps, and you never invent facts that are not in it.<|im_end|>\n"
    "<|im_start|>user\n"
)
TERSE = "<|im_start|>system\nAnswer in one word.<|im_end|>\n<|im_start|>user\n"
ASK = "\n\nWhat does this document say about warranty?<|im_end|>\n<|im_start|>assistant\n"
OTHER = "\n\nWho may distribute modified versions?<|im_end|>\n<|im_start|>assistant\n"
OFF_TOPIC = "\n\nPlease name one colour.<|im_end|>\n<|im_start|>assistant\n"

# Name -> KL of the first token in nats, and share recomputed, that reuse may have at most.
# Reordered prompts of this length are farther off than those of 4,000 tokens (0.02).
LIMITS = {
    "another question": (1e-4, 0.1),
    "longer system prompt": (5e-3, 0.2),
    "sentences deleted": (5e-3, 0.25),
    "another order": (3e-2, 0.35),
}
# Asked once more after a restart.
RESTARTED = ("another question", "longer system prompt")


def _lacking(reason: str) -> None:
    """A skip; with a broker to test it is a failure, for CI has everything."""
    if BINARY:
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def smollm2() -> Iterator[tuple[Any, Any]]:
    for file in (DOCUMENT, UNRELATED):
        if not file.exists():
            _lacking(f"{file} is not on this machine")
    try:
        loaded = load_model("smollm2")
    except FileNotFoundError as error:
        _lacking(str(error))
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield loaded
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def prompts(smollm2: tuple[Any, Any]) -> dict[str, list[int]]:
    """Token ids by name: what is stored, what is asked."""
    _, tokenizer = smollm2
    text = tokenizer.decode(tokenizer.encode(DOCUMENT.read_text())[:1250])
    sentences = re.split(r"(?<=[.;:])\s+", text)
    plain = " ".join(sentences)
    shorter = " ".join(s for n, s in enumerate(sentences) if n % 10 != 4)
    blocks = [" ".join(sentences[at : at + 8]) for at in range(0, len(sentences), 8)]
    random.Random(4).shuffle(blocks)
    unrelated = tokenizer.decode(tokenizer.encode(UNRELATED.read_text())[400:1400])
    texts = {
        "stored": SHORT + plain + ASK,
        "another question": SHORT + plain + OTHER,
        "longer system prompt": LONG + plain + ASK,
        "sentences deleted": SHORT + shorter + ASK,
        "another order": SHORT + " ".join(blocks) + ASK,
        "unrelated": TERSE + unrelated + OFF_TOPIC,
    }
    ids = {name: list(tokenizer.encode(text)) for name, text in texts.items()}
    assert len(ids["stored"]) >= 1200
    return ids


@pytest.fixture(scope="module")
def truth(smollm2: tuple[Any, Any], prompts: dict[str, list[int]]) -> Callable[[str], torch.Tensor]:
    """The model's own logits `[vocab]` of a prompt, computed once."""
    model, _ = smollm2
    known: dict[str, torch.Tensor] = {}

    def look(name: str) -> torch.Tensor:
        if name not in known:
            with torch.inference_mode():
                ids = torch.tensor([prompts[name]])
                known[name] = model(ids, logits_to_keep=1).logits[0, -1]
        return known[name]

    return look


def _kl(full: torch.Tensor, logits: torch.Tensor) -> float:
    """KL(full || reuse) of the first token, nats, float64 over the whole vocabulary."""
    p, q = (torch.log_softmax(x.double(), dim=-1) for x in (full, logits))
    return float((p.exp() * (p - q)).sum())


def _expect_faithful(name: str, result: PrefillResult, full: torch.Tensor) -> None:
    report = result.report
    limit, share = LIMITS[name]
    assert report.kind in ("exact_prefix", "shifted", "edited"), (name, report)
    assert report.recomputed_share <= share, (name, report)
    assert _kl(full, result.logits) <= limit, (name, report)


def test_special_tokens_are_parsed(smollm2: tuple[Any, Any]) -> None:
    _, tokenizer = smollm2
    ids = tokenizer.encode("<|im_start|>user\nHello<|im_end|>")
    assert ids[0] == tokenizer.convert_tokens_to_ids("<|im_start|>")
    assert ids[-1] == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert len(ids) == 5


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RealBroker | None]:
    """The broker under test with its default gates; None where there is no binary."""
    if not BINARY:
        yield None
        return
    with RealBroker(tmp_path) as running:
        yield running


def test_related_prompts_are_faithful_before_and_after_a_restart(
    smollm2: tuple[Any, Any],
    prompts: dict[str, list[int]],
    truth: Callable[[str], torch.Tensor],
    server: RealBroker | None,
) -> None:
    model, _ = smollm2
    with server.client() if server else nullcontext(LocalBroker()) as client:
        cached = CachedModel(model, client)
        stored = cached.store(prompts["stored"])
        assert (stored.error, stored.visible, stored.durable) == ("", True, True)
        before = {name: cached.prefill(prompts[name]) for name in LIMITS}
        missed = cached.prefill(prompts["unrelated"])
        cached.close()
    for name, result in before.items():
        _expect_faithful(name, result, truth(name))
    assert (missed.report.kind, missed.report.recomputed_share) == ("miss", 1.0), missed.report
    assert torch.equal(missed.logits, truth("unrelated"))
    assert not [key for key in cached.counters if key.startswith(("fallback", "register"))]
    if server is None:
        _expect_generates_as_the_model_does(model, before["another question"])
        return

    assert server.stop() == 0
    server.start()
    with server.client() as client:
        cached = CachedModel(model, client)
        again = {name: cached.prefill(prompts[name]) for name in RESTARTED}
        cached.close()
    for name, result in again.items():
        assert result.report.kind == before[name].report.kind
        assert result.report.matched_tokens == before[name].report.matched_tokens
        assert torch.equal(result.logits, before[name].logits), name
    _expect_generates_as_the_model_does(model, again["another question"])


def _expect_generates_as_the_model_does(model: Any, result: PrefillResult) -> None:
    """`model.generate` over the result's cache gives the tokens that it gives without a cache."""
    ids = result.next_ids
    options = {"max_new_tokens": 11, "do_sample": False, "attention_mask": torch.ones_like(ids)}
    found = model.generate(ids, past_key_values=result.cache, **options)
    bare = torch.tensor([list(result.ids)])
    options |= {"max_new_tokens": 12, "attention_mask": torch.ones_like(bare)}
    assert found.tolist() == model.generate(bare, **options).tolist()
