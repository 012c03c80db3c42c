"""The corpus's texts: translations, versions, needles, and the pairs made of them."""

from __future__ import annotations

import itertools
import shutil
from collections import Counter
from pathlib import Path

import pytest

from semshare.texts import (
    CORPUS_CLASSES,
    Conversation,
    CorpusPair,
    DocumentError,
    build_corpus,
    document_license,
    document_names,
    translations,
    versions,
)
from semshare.texts.needles import make_needle
from semshare.texts.translations import Verse, fit_verses, parse_imp, plain_text, reword

DUMP = """$$$[ Module Heading ]

$$$Ruth 0:0
<title>The book</title>
$$$Ruth 1:1
<div sID="a"/><w lemma="x">John</w> <w>came</w> <w>baptizing</w><note place="foot">or,
immersing</note><w>in</w> the <transChange>land</transChange>,<l eID="b"/> <l sID="c"/>\u00b6 twice
.
$$$Ruth 1:2

$$$I Kings 2:10
&amp; <divineName>Lord</divineName>.
"""
VERSES = [Verse(1 + n // 10, f"modern {n}.", f"old {n}.") for n in range(40)]


def count_words(text: str) -> int:
    return len(text.split())


def test_markup_becomes_plain_text() -> None:
    assert [(place, plain_text(markup)) for place, markup in parse_imp(DUMP)] == [
        (("Ruth", 1, 1), "John came baptizing in the land, twice."),
        (("Ruth", 1, 2), ""),
        (("I Kings", 2, 10), "& Lord."),
    ]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_reword_changes_the_share(share: float) -> None:
    text = reword(VERSES, share, 3)
    assert text.count("old ") == round(share * len(VERSES))
    assert text.count("old ") + text.count("modern ") == len(VERSES)
    paragraphs = text.split("\n\n")
    assert [p for p in paragraphs if p.startswith("Chapter")] == [
        f"Chapter {n}" for n in range(1, 5)
    ]
    # The numbers of the verses are in order whatever the wording.
    numbers = [int(word[:-1]) for word in text.split() if word.endswith(".")]
    assert numbers == list(range(len(VERSES)))


def test_reworded_verses_are_nested_and_follow_the_seed() -> None:
    def old(share: float, seed: int) -> set[str]:
        words = reword(VERSES, share, seed).split()
        return {b for a, b in itertools.pairwise(words) if a == "old"}

    assert old(0.1, 3) < old(0.3, 3) < old(0.5, 3)
    assert old(0.5, 3) != old(0.5, 4)
    with pytest.raises(ValueError, match="share"):
        reword(VERSES, 1.1, 3)


def test_fit_verses_is_the_longest_beginning() -> None:
    fitted = fit_verses(VERSES, 50, count_words)
    assert count_words(reword(fitted, 0.0, 0)) <= 50
    assert count_words(reword(VERSES[: len(fitted) + 1], 0.0, 0)) > 50
    with pytest.raises(DocumentError, match="1 tokens"):
        fit_verses(VERSES, 1, count_words)


def test_missing_translations_name_the_part_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    translations._entries.cache_clear()
    with pytest.raises(DocumentError, match=r"deploy/setup\.sh report"):
        translations.verses("Ruth")


@pytest.mark.skipif(shutil.which("mod2imp") is None, reason="deploy/setup.sh report")
def test_translations_of_the_packages() -> None:
    translations._entries.cache_clear()
    ruth = translations.verses("Ruth")
    assert len(ruth) == 85
    assert ruth[15].modern.startswith("Ruth said, \u201cDon\u2019t urge me")
    assert ruth[15].old.startswith("And Ruth said, Intreat me not")
    assert not any("<" in verse.modern + verse.old for verse in ruth)
    with pytest.raises(DocumentError, match="no book"):
        translations.verses("No Such Book")


def test_needles_follow_their_seed() -> None:
    needles = [make_needle(seed) for seed in range(50)]
    assert needles == [make_needle(seed) for seed in range(50)]
    assert len({needle.code for needle in needles}) > 45
    for needle in needles:
        assert len(needle.code) == len(needle.old_code) == 4 and needle.code != needle.old_code
        assert needle.sentence(needle.code).endswith(f"is {needle.code}.")
        assert needle.place in needle.question


def test_every_document_has_a_license() -> None:
    assert all(document_license(name) for name in document_names())
    with pytest.raises(DocumentError, match="no such"):
        document_license("no such")


def test_conversation_is_the_template() -> None:
    talk = Conversation("S", (("U1", "A1"),), "U2")
    begin = "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU1<|im_end|>\n"
    middle = "<|im_start|>assistant\nA1<|im_end|>\n"
    assert talk.tail() == "<|im_start|>user\nU2<|im_end|>\n<|im_start|>assistant\n"
    assert talk.text() == begin + middle + talk.tail()


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins for what setup.sh installs, so that the whole corpus is built anywhere."""
    files = ("decorators", "parser", "utils", "shell_completion", "exceptions", "testing", "types")
    for version in ("8.0.1", "8.1.3", "8.1.7"):
        folder = tmp_path / f"click-{version}" / "click"
        folder.mkdir(parents=True)
        for file in files:
            blocks = [f"def {file}_{n}():\n    return {n}" for n in range(40)]
            blocks[7] = f"# in {version}"
            (folder / f"{file}.py").write_text("\n\n".join(blocks))
    monkeypatch.setattr("semshare.texts.versions.sources_folder", lambda: tmp_path)

    def entries(module: str) -> list[tuple[tuple[str, int, int], str]]:
        books = ("Mark", "Esther", "Genesis", "Jonah", "Philippians", "Acts", "Matthew")
        return [
            ((book, 1 + n // 20, n % 20), f"In {module} this is what verse {n} of {book} says.")
            for book in books
            for n in range(100)
        ]

    monkeypatch.setattr(translations, "_entries", entries)


def test_corpus_has_every_class_and_is_deterministic(sources: None) -> None:
    pairs = list(build_corpus(7, count_words))
    assert pairs == list(build_corpus(7, count_words))
    counts = Counter(pair.kind for pair in pairs)
    assert set(counts) == set(CORPUS_CLASSES)
    answered = [pair for pair in pairs if pair.answer is not None]
    assert len(answered) == counts["needle"] + counts["number"] >= 50
    assert len(pairs) - len(answered) >= 60
    assert len({pair.name for pair in pairs}) == len(pairs)
    long = Counter(pair.kind for pair in pairs if pair.length == 4300)
    assert min(long.values()) >= 2 and len(long) == len(CORPUS_CLASSES)
    other = {pair.name: pair for pair in build_corpus(8, count_words)}
    for kind in ("words", "deleted", "reordered", "rewritten-30"):
        pair = next(pair for pair in pairs if pair.kind == kind)
        assert other[pair.name].target != pair.target


def test_corpus_pairs_hold_together(sources: None) -> None:
    for pair in build_corpus(7, count_words):
        assert pair.target.endswith(pair.tail)
        assert pair.reference[0].endswith(pair.reference_tail)
        assert pair.target not in pair.reference
        assert pair.license and pair.text
        check_answer(pair)


def check_answer(pair: CorpusPair) -> None:
    """The answer is in the target and nowhere in what was stored."""
    if pair.answer is not None:
        assert pair.answer in pair.target.removesuffix(pair.tail)
        assert not any(pair.answer in reference for reference in pair.reference)


def test_retrieved_passages_come_from_both_references(sources: None) -> None:
    pair = next(p for p in build_corpus(7, count_words) if p.kind == "retrieval")
    passages = [f"From {p}" for p in pair.target.removesuffix(pair.tail).split("From ")[1:]]
    assert len(passages) == 5
    held = [[p.strip() in reference for p in passages] for reference in pair.reference]
    assert [any(columns) for columns in zip(*held, strict=True)] == [True] * 5
    assert all(0 < sum(each) < 5 for each in held)


def test_missing_sources_name_the_part_to_install(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match=r"deploy/setup\.sh report"):
        versions.version_pair("parser.py", "8.1.3", "8.1.7", tmp_path)
