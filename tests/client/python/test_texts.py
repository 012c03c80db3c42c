"""Documents, seeded edits and prompt pairs."""

import itertools
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import semshare
from semshare.texts import (
    CLASSES,
    ChatPrompt,
    DocumentError,
    PairMaker,
    delete_sentences,
    document,
    document_names,
    fit,
    insert_passage,
    read_document,
    reorder_passages,
    replace_words,
)
from semshare.texts.edits import is_heading, sentences
from semshare.texts.pairs import PASSAGES, SENTENCE_SHARE, WORD_SHARE

TEXT = document("tide_station").text


def words_of(text: str) -> list[str]:
    return re.findall(r"[A-Za-z]+", text)


def count_words(text: str) -> int:
    return len(text.split())


def sentence_count(text: str) -> int:
    return sum(len(sentences(p)) for p in text.split("\n\n") if not is_heading(p))


@pytest.mark.parametrize("name", document_names())
def test_documents_are_clean_paragraphs(name: str) -> None:
    text = document(name).text
    assert count_words(text) > 1500
    for paragraph in text.split("\n\n"):
        assert paragraph == " ".join(paragraph.split()) != ""
        assert not re.fullmatch(r"[-=*]+", paragraph)
        assert " ".join(sentences(paragraph)) == paragraph


def test_unknown_document_names_the_known_ones() -> None:
    with pytest.raises(DocumentError, match="tide_station"):
        document("no such")


def test_missing_document_is_a_document_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("semshare.texts.documents._LICENSES", Path("/nonexistent"))
    with pytest.raises(DocumentError, match="gpl-3"):
        document("gpl-3")


def test_a_file_is_a_document(tmp_path: Path) -> None:
    file = tmp_path / "own.txt"
    file.write_text("One line\nand another.\n\n-----\n\nA second paragraph.\n", encoding="utf-8")
    own = read_document(file)
    assert (own.name, own.text) == ("own.txt", "One line and another.\n\nA second paragraph.")
    assert len(own.questions) == 2
    for content in (b"", b"\n \n", b"\xff\xfe"):
        file.write_bytes(content)
        with pytest.raises(DocumentError, match=r"own\.txt"):
            read_document(file)
    with pytest.raises(DocumentError, match="cannot read"):
        read_document(tmp_path / "none")


@pytest.mark.parametrize("limit", [8, 100, 1000, 10**6])
def test_fit_is_the_longest_beginning(limit: int) -> None:
    whole = document("tide_station")
    part = fit(whole, limit, count_words)
    assert whole.text.startswith(part.text)
    assert count_words(part.text) <= limit
    if part.text != whole.text:
        following = whole.text[len(part.text) + 2 :].split("\n\n")[0]
        assert count_words(part.text) + count_words(following) > limit


def test_fit_refuses_what_cannot_fit() -> None:
    with pytest.raises(DocumentError, match="2 tokens"):
        fit(document("tide_station"), 2, count_words)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.3])
def test_replace_words_replaces_the_share(share: float) -> None:
    before, after = words_of(TEXT), words_of(replace_words(TEXT, share, 3))
    assert len(before) == len(after)
    changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert len(changed) == round(share * len(before))
    vocabulary = {word.lower() for word in before}
    for old, new in changed:
        assert len(old) >= 4
        assert new.lower() in vocabulary
        assert old[0].isupper() == new[0].isupper()
    # Everything that is no word stays where it was.
    assert re.sub("[A-Za-z]+", "", TEXT) == re.sub("[A-Za-z]+", "", replace_words(TEXT, share, 3))


def test_replace_words_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match="share"):
        replace_words(TEXT, 1.5, 1)
    with pytest.raises(ValueError, match="cannot replace"):
        replace_words("same same same", 1.0, 1)
    with pytest.raises(ValueError, match="cannot replace"):
        replace_words("a few of it", 1.0, 1)


@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_delete_sentences_deletes_the_share(share: float) -> None:
    before, after = TEXT, delete_sentences(TEXT, share, 5)
    total = sentence_count(before)
    assert sentence_count(after) == total - round(share * total)
    headings = [p for p in before.split("\n\n") if is_heading(p)]
    assert [p for p in after.split("\n\n") if is_heading(p)] == headings
    left = iter(s for p in before.split("\n\n") for s in sentences(p))
    # What is left is in the old order.
    assert all(s in left for p in after.split("\n\n") for s in sentences(p))


@pytest.mark.parametrize("name", ["tide_station", "gpl-3", "lgpl-2.1"])
@pytest.mark.parametrize("seed", range(4))
def test_reorder_moves_every_passage(name: str, seed: int) -> None:
    before = document(name).text.split("\n\n")
    after = reorder_passages(document(name).text, seed, 6).split("\n\n")
    assert Counter(before) == Counter(after)
    following = set(itertools.pairwise(after))
    kept = sum(pair in following for pair in itertools.pairwise(before))
    # At most six places where the text does not go on as before: five cuts and the front.
    assert len(before) - 1 - kept in range(5, 7)
    assert before[0] == after[0]


def test_reorder_refuses_too_short_a_text() -> None:
    with pytest.raises(ValueError, match="passages"):
        reorder_passages("one\n\ntwo", 1, 6)
    with pytest.raises(ValueError, match="at least 4"):
        reorder_passages(TEXT, 1, 3)


@pytest.mark.parametrize("seed", range(5))
def test_insert_puts_the_passage_between_paragraphs(seed: int) -> None:
    after = insert_passage(TEXT, "A passage.", seed).split("\n\n")
    place = after.index("A passage.")
    assert after[:place] + after[place + 1 :] == TEXT.split("\n\n")
    assert len(after) // 5 < place < len(after) * 4 // 5
    assert not is_heading(after[place - 1])


def test_insert_refuses_too_short_a_text() -> None:
    with pytest.raises(ValueError, match="too few"):
        insert_passage("one\n\ntwo", "passage", 1)


def test_sentences_keep_abbreviated_names_and_quotes() -> None:
    text = 'By J. Smith and others. He said "no." Then he left. Was it 2.31? Yes.'
    assert sentences(text) == [
        "By J. Smith and others.",
        'He said "no."',
        "Then he left.",
        "Was it 2.31?",
        "Yes.",
    ]
    assert sentences("") == []


def test_chat_prompt_is_the_template() -> None:
    prompt = ChatPrompt("S", "D", "Q")
    assert prompt.text() == (
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nD\n\nEnd of the document.\n\n"
        "Question: Q\nAnswer in one sentence.<|im_end|>\n<|im_start|>assistant\n"
    )


def test_pairs_change_what_their_class_says() -> None:
    maker = PairMaker(document("tide_station"), document("apache-2.0"), 7)
    pairs = {name: maker.make(name) for name in CLASSES}
    reference = maker.reference().text()
    assert {pair.reference for pair in pairs.values()} == {reference}
    assert len({pair.target for pair in pairs.values()} | {reference}) == len(CLASSES) + 1
    assert all(pair.seed == 7 and pair.title for pair in pairs.values())
    assert TEXT in pairs["system"].target
    assert len(pairs["system"].target) > len(reference) + 300
    assert pairs["question"].target.startswith(reference.partition("Question:")[0])
    assert replace_words(TEXT, WORD_SHARE, 7) in pairs["words"].target
    assert delete_sentences(TEXT, SENTENCE_SHARE, 7) in pairs["deleted"].target
    assert reorder_passages(TEXT, 7, PASSAGES) in pairs["reordered"].target
    assert document("apache-2.0").text in pairs["unrelated"].target


def test_seeds_decide_and_hashing_does_not() -> None:
    maker = PairMaker(document("tide_station"), document("apache-2.0"), 7)
    other = PairMaker(document("tide_station"), document("apache-2.0"), 8)
    assert maker.make("words") == maker.make("words")
    for name in ("words", "deleted", "reordered", "inserted"):
        assert maker.make(name).target != other.make(name).target
    code = (
        "import hashlib\n"
        "from semshare.texts import *\n"
        "maker = PairMaker(document('tide_station'), document('apache-2.0'), 7)\n"
        "text = ''.join(maker.make(name).target for name in CLASSES)\n"
        "print(hashlib.sha256(text.encode()).hexdigest())\n"
    )
    root = str(Path(semshare.__file__).parents[1])
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": root, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1
