"""Prompts in the chat template of SmolLM2-Instruct, special tokens written out."""

from __future__ import annotations

from dataclasses import dataclass, replace

SYSTEM = "You are a helpful assistant."

# Longer than SYSTEM, so that it moves the document to other positions.
LONGER_SYSTEM = (
    "You are the night assistant of a small public library. Readers bring you one document and "
    "one question at a time. Read the document with care, answer from it alone, and say so when "
    "the document does not hold the answer. Keep to plain words, give names and numbers exactly "
    "as they are written, do not repeat the question, and never answer in more than two "
    "sentences. Today the reading room is open until ten."
)


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation in which every turn of the user brings a passage and asks about it.

    `turns` are (user, assistant); `last` is the user's turn that waits for an answer.
    """

    system: str
    turns: tuple[tuple[str, str], ...]
    last: str

    def text(self) -> str:
        """The prompt up to where the assistant begins to speak."""
        said = "".join(
            f"<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n{assistant}<|im_end|>\n"
            for user, assistant in self.turns
        )
        return f"<|im_start|>system\n{self.system}<|im_end|>\n{said}{self.tail()}"

    def tail(self) -> str:
        """The last turn of the user."""
        return f"<|im_start|>user\n{self.last}<|im_end|>\n<|im_start|>assistant\n"


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """A system prompt, a document and a question about it, in one user turn."""

    system: str
    document: str
    question: str

    def text(self) -> str:
        """The prompt up to where the assistant begins to speak.

        Without a word that the document has ended, a small model goes on writing it.
        """
        return (
            f"<|im_start|>system\n{self.system}<|im_end|>\n"
            f"<|im_start|>user\n{self.document}{self.tail()}"
        )

    def tail(self) -> str:
        """What follows the document: the question."""
        return (
            f"\n\nEnd of the document.\n\nQuestion: {self.question}\n"
            "Answer in one sentence.<|im_end|>\n<|im_start|>assistant\n"
        )

    def with_system(self, system: str) -> ChatPrompt:
        """The same prompt under another system prompt."""
        return replace(self, system=system)

    def with_document(self, document: str) -> ChatPrompt:
        """The same prompt about another document."""
        return replace(self, document=document)

    def with_question(self, question: str) -> ChatPrompt:
        """The same prompt with another question."""
        return replace(self, question=question)
