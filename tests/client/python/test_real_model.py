"""SmolLM2 over prompts of about 1,500 tokens: fidelity of reuse against its own full prefill."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from local_broker import LocalBroker

from semshare.hf import CachedModel, load_model

DOCUMENT = Path("/usr/share/common-licenses/GPL-3")
SHORT = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
LONG = (
    "<|im_start|>system\nYou are a careful legal assistant. You answer in plain English, you quote "
    "the document where that helps, and you never invent facts that are not in it.<|im_end|>\n"
    "<|im_start|>user\n"
)
ASK = "\n\nWhat does this document say about warranty?<|im_end|>\n<|im_start|>assistant\n"
OTHER = "\n\nWho may distribute modified versions?<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture(scope="module")
def smollm2() -> Iterator[tuple[Any, Any]]:
    if not DOCUMENT.exists():
        pytest.skip(f"{DOCUMENT} is not on this machine")
    try:
        loaded = load_model("smollm2")
    except FileNotFoundError as error:
        pytest.skip(str(error))
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield loaded
    torch.set_num_threads(threads)


def _kl(model: Any, ids: list[int], logits: torch.Tensor) -> float:
    """KL(full || reuse) of the first token, nats, float64 over the whole vocabulary."""
    with torch.inference_mode():
        full = model(torch.tensor([ids]), logits_to_keep=1).logits[0, -1]
    p, q = (torch.log_softmax(x.double(), dim=-1) for x in (full, logits))
    return float((p.exp() * (p - q)).sum())


def test_special_tokens_are_parsed(smollm2: tuple[Any, Any]) -> None:
    _, tokenizer = smollm2
    ids = tokenizer.encode("<|im_start|>user\nHello<|im_end|>")
    assert ids[0] == tokenizer.convert_tokens_to_ids("<|im_start|>")
    assert ids[-1] == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert len(ids) == 5


def test_related_prompts_are_faithful(smollm2: tuple[Any, Any]) -> None:
    model, tokenizer = smollm2
    cached = CachedModel(model, LocalBroker())
    text = tokenizer.decode(tokenizer.encode(DOCUMENT.read_text())[:1400])
    sentences = re.split(r"(?<=[.;:])\s+", text)
    plain = " ".join(sentences)
    shorter = " ".join(s for n, s in enumerate(sentences) if n % 10 != 4)
    blocks = [" ".join(sentences[at : at + 8]) for at in range(0, len(sentences), 8)]
    random.Random(4).shuffle(blocks)
    cached.store(tokenizer.encode(SHORT + plain + ASK))
    cases = [
        ("another question", SHORT + plain + OTHER, 1e-4, 0.1),
        ("longer system prompt", LONG + plain + ASK, 5e-3, 0.2),
        ("sentences deleted", SHORT + shorter + ASK, 1e-2, 0.25),
        ("another order", SHORT + " ".join(blocks) + ASK, 3e-2, 0.35),
    ]
    for name, target, limit, share in cases:
        ids = tokenizer.encode(target)
        result = cached.prefill(ids)
        report = result.report
        assert report.kind in ("exact_prefix", "shifted", "edited"), name
        assert report.recomputed_share <= share, (name, report.recomputed_share)
        assert _kl(model, ids, result.logits) <= limit, name
        del result
    cached.close()


def test_an_exact_prefix_generates_what_the_model_does(smollm2: tuple[Any, Any]) -> None:
    model, tokenizer = smollm2
    cached = CachedModel(model, LocalBroker())
    text = tokenizer.decode(tokenizer.encode(DOCUMENT.read_text())[:500])
    cached.store(tokenizer.encode(SHORT + text + ASK))
    ids = tokenizer.encode(SHORT + text + OTHER)
    found = cached.generate(ids, 12)
    assert found.report.kind == "exact_prefix"
    mask = torch.ones(1, len(ids), dtype=torch.int64)
    want = model.generate(
        torch.tensor([ids]), attention_mask=mask, max_new_tokens=12, do_sample=False
    )
    assert found.ids == want[0].tolist()
    cached.close()
