"""Pairs of prompts, by class: what was served before, and what is asked now."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from semshare.texts.chat import LONGER_SYSTEM, SYSTEM, ChatPrompt
from semshare.texts.documents import Document
from semshare.texts.edits import (
    delete_sentences,
    insert_passage,
    reorder_passages,
    replace_words,
)

WORD_SHARE = 0.05
SENTENCE_SHARE = 0.10
PASSAGES = 6

_INSERTED = (
    "A note was added here by a later hand. It says that the pages before and after it were read "
    "again in the autumn, that two small errors of spelling were mended and one was left because "
    "everybody had grown fond of it, and that nothing of substance was changed. It is signed with "
    "initials that nobody has been able to read, and it has been copied faithfully ever since."
)


@dataclass(frozen=True, slots=True)
class PromptPair:
    """Two prompts as text, special tokens written out, and the seed that made the second."""

    name: str
    title: str
    reference: str
    target: str
    seed: int


@dataclass(frozen=True, slots=True)
class PairMaker:
    """Makes pairs of prompts about one document; `other` serves the unrelated prompt."""

    source: Document
    other: Document
    seed: int

    def reference(self) -> ChatPrompt:
        """The prompt that is stored: a short system prompt, the document, its first question."""
        return ChatPrompt(SYSTEM, self.source.text, self.source.questions[0])

    def make(self, name: str) -> PromptPair:
        """The pair of one class, a key of `CLASSES`. Raises `KeyError` for any other name."""
        title, _ = CLASSES[name]
        return PromptPair(name, title, self.reference().text(), self.prompt(name).text(), self.seed)

    def prompt(self, name: str) -> ChatPrompt:
        """The target of one class, a key of `CLASSES`. Raises `KeyError` for any other name."""
        return CLASSES[name][1](self, self.reference())


def _system(maker: PairMaker, before: ChatPrompt) -> ChatPrompt:
    return before.with_system(LONGER_SYSTEM)


def _question(maker: PairMaker, before: ChatPrompt) -> ChatPrompt:
    return before.with_question(maker.source.questions[1])


def _words(maker: PairMaker, before: ChatPrompt) -> ChatPrompt:
    return before.with_document(replace_words(before.document, WORD_SHARE, maker.seed))


def _deleted(maker: PairMaker, before: ChatPrompt) -> ChatPrompt:
    return before.with_document(delete_sentences(before.document, SENTENCE_SHARE, maker.seed))


def _reordered(maker: PairMaker, before: ChatPrompt) -> ChatPrompt:
    return before.with_document(reorder_passages(before.document, maker.seed, PASSAGES))


def _inserted(maker: PairMaker, before: ChatPrompt) -> ChatPrompt:
    return before.with_document(insert_passage(before.document, _INSERTED, maker.seed))


def _unrelated(maker: PairMaker, before: ChatPrompt) -> ChatPrompt:
    # Nothing in common but the template: neither the system prompt nor the question.
    return ChatPrompt("Answer in one short sentence.", maker.other.text, maker.other.questions[0])


# Name -> title, and what makes the target of the reference.
CLASSES: dict[str, tuple[str, Callable[[PairMaker, ChatPrompt], ChatPrompt]]] = {
    "system": ("another system prompt in front", _system),
    "question": ("another question", _question),
    "words": ("5 % of the words replaced", _words),
    "deleted": ("10 % of the sentences deleted", _deleted),
    "reordered": ("passages in another order", _reordered),
    "inserted": ("a passage inserted", _inserted),
    "unrelated": ("an unrelated document", _unrelated),
}
