"""Words that must be equal: what the guard marks, and prompts that differ in nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from local_broker import LocalBroker
from real_broker import BINARY, RealBroker, needs_semshared

from semshare.hf import CachedModel, TokenGuard, load_model
from semshare.hf.divergence import kl_divergence
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
    marks = np.zeros(len(ids), dtype=bool)
    for begin, end in TokenGuard(tokenizer).words(ids):
        marks[begin:end] = True
    kept = tokenizer.decode([each for each, mark in zip(ids, marks, strict=True) if not mark])
    assert kept.split() == (before + after).split(), tokenizer.decode(ids)
    assert bool(marks.any())


def test_plain_words_are_free(smollm2: tuple[Any, Any]) -> None:
    tokenizer = smollm2[1]
    ids = tokenizer.encode(" the water rose quickly, and nobler people than we are left the shore;")
    assert list(TokenGuard(tokenizer).words(ids)) == []


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
    computed = [tokenizer.decode([each]).strip() for each in np.asarray(target)[marks]]
    assert [each for each in computed if each] == ["now", "4"]
    del match.segments[1].source_ids[-1]
    with pytest.raises(MalformedAnswer, match="does not name its source"):
        guard.must_compute(target, match)


def test_a_number_is_not_put_together_from_another(smollm2: tuple[Any, Any]) -> None:
    """Digits that are equal, and far from any other difference, were computed behind others."""
    tokenizer = smollm2[1]
    guard = TokenGuard(tokenizer)
    words = " some plain words that say very little about anything that matters to us here"
    text = f"{words} the 21 of may{words} and 12{words} to the end"
    target = tokenizer.encode(text)
    digits = [place for place, each in enumerate(target) if tokenizer.decode([each]) in "012"]
    assert len(digits) == 4, "a token for each digit"
    first, second = digits[:2], digits[2:]

    def match_of(*pieces: tuple[int, int, int]) -> Any:
        match = pb.Match(kind=pb.RESULT_KIND_EDITED)
        for begin, end, source in pieces:
            match.segments.add(
                target_begin=begin,
                tokens=end - begin,
                source_begin=source,
                kind=pb.SEGMENT_KIND_TOKEN,
            )
        return match

    # The second digit of 21 is taken from the 1 of 12 before it; 12 itself has only moved.
    end = len(target) - 1
    moved = (second[0] - 5, end, 90)
    broken = match_of((0, first[0], 0), (first[1], first[1] + 1, first[0]), moved)
    marks = guard.must_compute(target, broken)
    assert [int(each) for each in np.flatnonzero(marks)] == first
    # One run that two segments make is no break, whatever their kinds.
    joined = match_of((0, first[1], 0), (first[1], end, first[1]))
    assert not guard.must_compute(target, joined).any()
    # A run that ends within a number: what is behind it has changed.
    cut = match_of((0, second[1], 0))
    assert [int(each) for each in np.flatnonzero(guard.must_compute(target, cut))] == second


def test_fuzzy_without_a_guard_is_refused() -> None:
    cached = CachedModel(tiny_models.make("llama"), LocalBroker())
    with pytest.raises(ValueError, match="needs a guard"):
        cached.prefill([1] * 300, mode="fuzzy")
    cached.close()


# Kind -> the sentence as it was stored, as it is asked, and the question.
FACTS = {
    "number": (
        "The access code of the boat house is 7413.",
        "The access code of the boat house is 4731.",
        "What is the access code of the boat house?",
    ),
    "date": (
        "The great inspection took place on 12 March 1974.",
        "The great inspection took place on 21 May 1983.",
        "On what date did the great inspection take place?",
    ),
    "name": (
        "The owner of the boat house is Edward Finch.",
        "The owner of the boat house is Margaret Hollis.",
        "Who is the owner of the boat house?",
    ),
    "identifier": (
        "The name of the variable that holds the code of the boat house is boat_code_a.",
        "The name of the variable that holds the code of the boat house is lock_word_b.",
        "What is the name of the variable that holds the code of the boat house?",
    ),
    "negation": (
        "Visitors are always allowed to enter the boat house.",
        "Visitors are never allowed to enter the boat house.",
        "Are visitors allowed to enter the boat house?",
    ),
    "inserted negation": (
        "It is safe to swim near the boat house.",
        "It is not safe to swim near the boat house.",
        "Is it safe to swim near the boat house?",
    ),
    "removed negation": (
        "It is not safe to swim near the boat house.",
        "It is safe to swim near the boat house.",
        "Is it safe to swim near the boat house?",
    ),
}
# What a model this small finds in the text; of the others only the distribution is compared.
TOLD = {"number": "4731", "date": "21 May 1983", "name": "Margaret Hollis"}


def _prompt(paragraphs: list[str], sentence: str, question: str) -> str:
    middle = len(paragraphs) // 2
    text = "\n\n".join([*paragraphs[:middle], sentence, *paragraphs[middle:]])
    return f"<|im_start|>user\n{text}\n\n{question}<|im_end|>\n<|im_start|>assistant\n"


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
@pytest.mark.parametrize("kind", list(FACTS))
def test_pairs_that_differ_only_there_answer_like_full_prefill(
    kind: str, smollm2: tuple[Any, Any], cached: CachedModel
) -> None:
    assert BINARY
    model, tokenizer = smollm2
    source = fit(document("tide_station"), 560, lambda text: len(tokenizer.encode(text)))
    paragraphs = source.text.split("\n\n")
    stored, asked, question = FACTS[kind]
    target = tokenizer.encode(_prompt(paragraphs, asked, question))
    assert cached.store(tokenizer.encode(_prompt(paragraphs, stored, question))).error == ""
    with torch.inference_mode():
        logits = model(torch.tensor([target]), logits_to_keep=1).logits[0, -1]
    if kind in TOLD:
        assert TOLD[kind] in tokenizer.decode(_answer(model, target)), "the model cannot tell"
    for mode in ("token", "fuzzy"):
        result = cached.prefill(target, mode=mode)
        assert result.report.kind in ("exact_prefix", "shifted", "edited", "fuzzy"), result.report
        assert result.report.recomputed_share < 0.5
        assert float(kl_divergence(logits, result.logits)) <= 0.005, mode
        assert int(logits.argmax()) == int(result.logits.argmax()), mode
        if kind in TOLD:
            assert TOLD[kind] in tokenizer.decode(cached.generate(target, 16, mode=mode).new_ids)
