"""The corpus of the fidelity report: pairs of prompts of every class, at several lengths.

`build_corpus` makes all of them from texts that come with packages, by a seed, in an order that
spreads the classes: whoever measures only a beginning has some of each. Pairs of one `group` have
references that may be held by one broker together; a broker is to hold one group only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from semshare.texts.chat import SYSTEM, ChatPrompt, Conversation
from semshare.texts.documents import Document, document, document_license, fit
from semshare.texts.edits import insert_passage, sentences
from semshare.texts.needles import make_needle
from semshare.texts.pairs import CLASSES, PairMaker
from semshare.texts.translations import TRANSLATIONS_LICENSE, fit_verses, reword, verses
from semshare.texts.versions import VERSIONS_LICENSE, version_pair

__all__ = ["CORPUS_CLASSES", "CorpusPair", "build_corpus"]

Count = Callable[[str], int]

SHORT, MIDDLE, LONG, LONGEST = 700, 2000, 4300, 6000
"""Tokens of a document; the question and the template add some forty."""

# Class -> title, in the order of the report.
CORPUS_CLASSES = {
    **{name: title for name, (title, _) in CLASSES.items() if name != "unrelated"},
    "versions": "a new version of a source file",
    "retrieval": "retrieved passages of two earlier prompts",
    "chat": "one more turn of a conversation",
    "rewritten-10": "10 % of the sentences in another wording",
    "rewritten-30": "30 % of the sentences in another wording",
    "rewritten-50": "50 % of the sentences in another wording",
    "paraphrase": "all sentences in another wording",
    "needle": "a fact added, and asked for",
    "number": "a number changed, and asked for",
    "unrelated": CLASSES["unrelated"][0],
}

_EDITS = ("system", "question", "words", "deleted", "reordered", "inserted")
_REWORDED = {"rewritten-10": 0.10, "rewritten-30": 0.30, "rewritten-50": 0.50, "paraphrase": 1.0}
_PASSAGES_IN_PROMPT = 5
_BOOK_QUESTION = "What happens in this text?"


@dataclass(frozen=True, slots=True)
class CorpusPair:
    """One pair. `tail` and `reference_tail` are what follows the document in each prompt (the
    question); `length` is the nominal number of tokens; `text` and `license` tell the source."""

    name: str
    kind: str
    length: int
    group: str
    reference: tuple[str, ...]
    target: str
    reference_tail: str
    tail: str
    text: str
    license: str
    seed: int
    answer: str | None = None


def build_corpus(seed: int, count: Count) -> Iterator[CorpusPair]:
    """Every pair, in order. `count` gives the tokens of a text.

    Raises `DocumentError` where a text is not installed.
    """
    build = _Builder(seed, count)
    yield from build.edited("tide_station", "apache-2.0", LONG)
    yield from build.versions("decorators.py", "8.0.1", "8.1.7", LONG)
    yield from build.reworded("Mark", LONG)
    yield from build.retrieval(1, LONG)
    yield from build.chat("gpl-3", LONG)
    yield from build.versions("parser.py", "8.1.3", "8.1.7", LONG)
    yield from build.edited("gpl-3", "tide_station", LONG)
    yield from build.reworded("Esther", LONG)
    yield from build.retrieval(2, LONG)
    yield from build.chat("lgpl-2.1", LONG)
    yield from build.needles("tide_station", 10, SHORT)
    yield from build.needles("apache-2.0", 10, SHORT)
    yield from build.versions("utils.py", "8.0.1", "8.1.7", LONG)
    yield from build.versions("shell_completion.py", "8.0.1", "8.1.7", LONG)
    yield from build.needles("mpl-2.0", 10, SHORT)
    yield from build.edited("python-types", "gpl-3", LONG)
    yield from build.reworded("Genesis", LONG)
    yield from build.retrieval(3, LONG)
    yield from build.chat("python-types", LONG)
    yield from build.needles("gpl-3", 6, MIDDLE)
    yield from build.edited("mpl-2.0", "apache-2.0", MIDDLE)
    yield from build.reworded("Jonah", MIDDLE)
    yield from build.versions("exceptions.py", "8.1.3", "8.1.7", MIDDLE)
    yield from build.retrieval(4, MIDDLE)
    yield from build.chat("mpl-1.1", MIDDLE)
    yield from build.edited("gfdl-1.3", "mpl-1.1", SHORT)
    yield from build.reworded("Philippians", SHORT)
    yield from build.versions("utils.py", "8.1.3", "8.1.7", SHORT)
    yield from build.retrieval(5, SHORT)
    yield from build.chat("mpl-2.0", SHORT)
    yield from build.edited("lgpl-2.1", "mpl-2.0", LONG)
    yield from build.reworded("Acts", LONG)
    yield from build.versions("testing.py", "8.1.3", "8.1.7", LONG)
    yield from build.needles("lgpl-2.1", 2, LONG)
    yield from build.edited("lgpl-2.1", "python-types", LONGEST)
    yield from build.reworded("Matthew", LONGEST)
    yield from build.versions("types.py", "8.0.1", "8.1.7", LONGEST)


def _pair(
    before: ChatPrompt | Conversation, after: ChatPrompt | Conversation, **rest: Any
) -> CorpusPair:
    """`after` over the reference `before`; `rest` are the other fields."""
    return CorpusPair(
        reference=(before.text(),),
        target=after.text(),
        reference_tail=before.tail(),
        tail=after.tail(),
        **rest,
    )


class _Builder:
    """Makes pairs; every random choice follows from the corpus's seed and the pair's place."""

    def __init__(self, seed: int, count: Count) -> None:
        self._seed = seed
        self._count = count

    def edited(self, name: str, other: str, length: int) -> Iterator[CorpusPair]:
        """All edits of one document over one reference, and an unrelated prompt."""
        source = fit(document(name), length, self._count)
        maker = PairMaker(source, fit(document(other), length, self._count), self._seed)
        before = maker.reference()
        for kind in (*_EDITS, "unrelated"):
            after = maker.prompt(kind)
            yield _pair(
                before,
                after,
                name=f"{kind}/{name}/{length}",
                kind=kind,
                length=length,
                group=f"edited/{name}/{length}",
                text=name,
                license=document_license(name),
                seed=self._seed,
            )

    def reworded(self, book: str, length: int) -> Iterator[CorpusPair]:
        """Shares of a book in another translation, under one question."""
        source = fit_verses(verses(book), length, self._count)
        before = ChatPrompt(SYSTEM, reword(source, 0.0, self._seed), _BOOK_QUESTION)
        for kind, share in _REWORDED.items():
            text = reword(source, share, self._seed)
            after = ChatPrompt(SYSTEM, text, _BOOK_QUESTION)
            yield _pair(
                before,
                after,
                name=f"{kind}/{book}/{length}",
                kind=kind,
                length=length,
                group=f"reworded/{book}/{length}",
                text=f"{book}, World English Bible and King James Version",
                license=TRANSLATIONS_LICENSE,
                seed=self._seed,
            )

    def versions(self, file: str, old: str, new: str, length: int) -> Iterator[CorpusPair]:
        """A source file before and after, under one question."""
        pair = version_pair(file, old, new)
        # Files of about the length are taken whole: an upper bound, not an aim.
        limit = round(length * 1.15)
        texts = [fit(each, limit, self._count).text for each in (pair.old, pair.new)]
        before, after = (ChatPrompt(SYSTEM, text, pair.new.questions[0]) for text in texts)
        name = f"versions/{file}-{old}-{new}/{length}"
        yield _pair(
            before,
            after,
            name=name,
            kind="versions",
            length=length,
            group=name,
            text=f"click/{file}, {old} and {new}",
            license=VERSIONS_LICENSE,
            seed=self._seed,
        )

    def retrieval(self, number: int, length: int) -> Iterator[CorpusPair]:
        """A prompt of passages that two earlier prompts had between them, in other places."""
        sources = ("tide_station", "gfdl-1.3", "mpl-1.1", "python-types", "apache-2.0")
        chosen = [self._passages(name, number, length) for name in sources]
        first = [passage for pair in chosen for passage in pair[:1]]
        second = [passage for pair in chosen for passage in pair[1:]]
        order = [second[1], first[3], second[4], first[0], second[2]]
        turn = number % len(order)
        question = "Which of the passages tells what may be done with a work?"
        before = [ChatPrompt(SYSTEM, "\n\n".join(part), question) for part in (first, second)]
        after = ChatPrompt(SYSTEM, "\n\n".join(order[turn:] + order[:turn]), question)
        name = f"retrieval/{number}/{length}"
        yield CorpusPair(
            name=name,
            kind="retrieval",
            length=length,
            group=name,
            reference=tuple(each.text() for each in before),
            target=after.text(),
            reference_tail=before[0].tail(),
            tail=after.tail(),
            text=", ".join(sources),
            license="; ".join(dict.fromkeys(map(document_license, sources))),
            seed=self._seed,
        )

    def _passages(self, name: str, number: int, length: int) -> tuple[str, str]:
        """Two passages of a document, other ones for every number."""
        share = length // _PASSAGES_IN_PROMPT
        paragraphs = document(name).text.split("\n\n")
        begin = (number * 3) % max(1, len(paragraphs) // 3)
        found = []
        for _ in range(2):
            rest = Document(name, name, "\n\n".join(paragraphs[begin:]), ("", ""))
            part = fit(rest, share, self._count).text
            found.append(f"From {document(name).title}:\n\n{part}")
            begin += len(part.split("\n\n"))
        return found[0], found[1]

    def chat(self, name: str, length: int) -> Iterator[CorpusPair]:
        """A conversation about parts of a document, then the same with the answer and one turn
        more."""
        paragraphs = fit(document(name), length, self._count).text.split("\n\n")
        size = -(-len(paragraphs) // _PASSAGES_IN_PROMPT)
        parts = ["\n\n".join(paragraphs[at : at + size]) for at in range(0, len(paragraphs), size)]
        asked = [f"{part}\n\nSum this up in one sentence." for part in parts]
        answers = [sentences(part.split("\n\n")[-1])[0] for part in parts]
        turns = list(zip(asked, answers, strict=True))
        before = Conversation(SYSTEM, tuple(turns[:-1]), asked[-1])
        after = Conversation(SYSTEM, tuple(turns), "Which of these parts is the most important?")
        pair_name = f"chat/{name}/{length}"
        yield _pair(
            before,
            after,
            name=pair_name,
            kind="chat",
            length=length,
            group=pair_name,
            text=name,
            license=document_license(name),
            seed=self._seed,
        )

    def needles(self, name: str, each: int, length: int) -> Iterator[CorpusPair]:
        """`each` pairs with a fact added and `each` with a number changed."""
        source = fit(document(name), length, self._count)
        for place in range(each):
            seed = self._seed * 1000 + length + place
            needle = make_needle(seed)
            new = insert_passage(source.text, needle.sentence(needle.code), seed)
            old = insert_passage(source.text, needle.sentence(needle.old_code), seed)
            after = ChatPrompt(SYSTEM, new, needle.question)
            for kind, before in (
                ("needle", ChatPrompt(SYSTEM, source.text, source.questions[0])),
                ("number", ChatPrompt(SYSTEM, old, needle.question)),
            ):
                yield _pair(
                    before,
                    after,
                    name=f"{kind}/{name}-{place}/{length}",
                    kind=kind,
                    length=length,
                    # Apart, or a reference of one would serve the other.
                    group=f"{kind}/{name}/{length}",
                    text=name,
                    license=document_license(name),
                    seed=seed,
                    answer=needle.code,
                )
