"""Words that must be equal: what the guard marks, and prompts that differ in nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import tiny_models
import torch
from local_broker import LocalBroker
from real_broker import BINARY, RealBroker, needs_semshared

from semshare.hf import CachedModel, TokenGuard, load_model
from semshare.hf.errors import MalformedAnswer
from semshare.texts import document, fit
from semshare.v1 import cache_broker_pb2 as pb


@pytest.fixture(scope="module")
def smollm2() -> Iterator[tuple[Any, Any]]:
    loaded = load_model("smollm2")
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield loaded
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    "word",
    [
        *("7413", "21", "1974.", "v2", "3/4", "Margaret", "NASA", "iPhone", "not", "didn't"),
        *("never,", '"no"', "cannot", "without", "start_pump", "a.b", "x=1", "~/bin", "yesterday"),
        *("Stra\u00dfe", "\u6c34"),
    ],
)
def test_words_that_tell_are_guarded_whole(word: str, smollm2: tuple[Any, Any]) -> None:
    tokenizer = smollm2[1]
    before, after = "the old pump is said to be ", " and so they went on"
    ids = tokenizer.encode(before + word + after)
    marks = TokenGuard(tokenizer).guarded(ids)
    kept = tokenizer.decode([each for each, mark in zip(ids, marks, strict=True) if not mark])
    assert kept.split() == (before + after).split(), tokenizer.decode(ids)
    assert bool(marks.any())


def test_plain_words_are_free(smollm2: tuple[Any, Any]) -> None:
    tokenizer = smollm2[1]
    ids = tokenizer.encode(" the water rose quickly, and nobler people than we are left the shore;")
    assert not TokenGuard(tokenizer).guarded(ids).any()


def test_either_side_of_a_fuzzy_segment_is_judged(smollm2: tuple[Any, Any]) -> None:
    tokenizer = smollm2[1]
    guard = TokenGuard(tokenizer)
    target = tokenizer.encode(" it is now safe near 4 boats")
    source = tokenizer.encode(" it is not safe near 4 boats")
    assert len(target) == len(source)
    match = pb.Match(kind=pb.RESULT_KIND_FUZZY)
    match.segments.add(target_begin=0, tokens=2, kind=pb.SEGMENT_KIND_EXACT)
    match.segments.add(
        target_begin=2, tokens=len(target) - 2, kind=pb.SEGMENT_KIND_FUZZY, source_ids=source[2:]
    )
    marks = guard.must_compute(target, match)
    wanted = [tokenizer.decode([each]).strip() in ("now", "4") for each in target]
    assert [*marks[:2], *marks[2:]] == wanted
    del match.segments[1].source_ids[-1]
    with pytest.raises(MalformedAnswer, match="does not name its source"):
        guard.must_compute(target, match)


def test_fuzzy_without_a_guard_is_refused() -> None:
    cached = CachedModel(tiny_models.make("llama"), LocalBroker())
    with pytest.raises(ValueError, match="needs a guard"):
        cached.prefill([1] * 300, mode="fuzzy")
    cached.close()


# Kind -> the sentence as it was stored, as it is asked, and the question.
FACTS = {
    "number": (
        "The pump of the lower basin holds 7413 litres.",
        "The pump of the lower basin holds 2968 litres.",
        "How many litres does the pump of the lower basin hold?",
    ),
    "date": (
        "The great inspection took place on 12 March 1974.",
        "The great inspection took place on 21 May 1983.",
        "On what date did the great inspection take place?",
    ),
    "name": (
        "The keeper of the lower basin is Margaret Hollis.",
        "The keeper of the lower basin is Edward Finch.",
        "Who is the keeper of the lower basin?",
    ),
    "negation": (
        "Visitors are always allowed to enter the lower basin.",
        "Visitors are never allowed to enter the lower basin.",
        "Are visitors allowed to enter the lower basin?",
    ),
    "inserted negation": (
        "It is safe to swim in the lower basin.",
        "It is not safe to swim in the lower basin.",
        "Is it safe to swim in the lower basin?",
    ),
    "removed negation": (
        "It is not safe to swim in the lower basin.",
        "It is safe to swim in the lower basin.",
        "Is it safe to swim in the lower basin?",
    ),
    "identifier": (
        "The function that starts the pump is called start_pump_v2.",
        "The function that starts the pump is called init_basin_hw.",
        "What is the function that starts the pump called?",
    ),
}


def _prompt(paragraphs: list[str], sentence: str, question: str) -> str:
    middle = len(paragraphs) // 2
    text = "\n\n".join([*paragraphs[:middle], sentence, *paragraphs[middle:]])
    return (
        f"<|im_start|>user\n{text}\n\n{question} Answer in one sentence.<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def _answer(model: Any, ids: list[int]) -> list[int]:
    tensor = torch.tensor([ids])
    with torch.inference_mode():
        out = model.generate(
            tensor,
            attention_mask=torch.ones_like(tensor),
            max_new_tokens=16,
            do_sample=False,
        )
    answer: list[int] = out[0, len(ids) :].tolist()
    return answer


@pytest.fixture(scope="module")
def cached(
    smollm2: tuple[Any, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[CachedModel]:
    model, tokenizer = smollm2
    # Prompts as short as these are not worth it; and a pair of one kind must not meet another's.
    flags = ["--minimum_gain=0", "--allow_fuzzy"]
    with RealBroker(tmp_path_factory.mktemp("broker"), *flags) as server, server.client() as client:
        reuse = CachedModel(model, client, guard=TokenGuard(tokenizer))
        yield reuse
        reuse.close()


@needs_semshared
@pytest.mark.parametrize("mode", ["token", "fuzzy"])
@pytest.mark.parametrize("kind", list(FACTS))
def test_pairs_that_differ_only_there_answer_like_full_prefill(
    kind: str, mode: str, smollm2: tuple[Any, Any], cached: CachedModel
) -> None:
    assert BINARY
    model, tokenizer = smollm2
    source = fit(document("tide_station"), 560, lambda text: len(tokenizer.encode(text)))
    paragraphs = source.text.split("\n\n")
    stored, asked, question = FACTS[kind]
    reference = tokenizer.encode(_prompt(paragraphs, stored, question))
    target = tokenizer.encode(_prompt(paragraphs, asked, question))
    assert cached.store(reference).error == ""
    result = cached.generate(target, 16, mode=mode)
    assert result.report.kind in ("shifted", "edited", "fuzzy"), result.report
    assert result.report.recomputed_share < 0.5
    full = _answer(model, target)
    assert tokenizer.decode(result.new_ids) == tokenizer.decode(full)
    # The fact decides the answer: with the old sentence the model says something else.
    if "negation" not in kind:
        assert tokenizer.decode(_answer(model, reference)) != tokenizer.decode(full)
