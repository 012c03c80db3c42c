"""Facts that cannot be guessed, put into a text, and questions about them."""

from __future__ import annotations

import random
from dataclasses import dataclass

__all__ = ["Needle", "make_needle"]

_PLACES = (
    "north gate",
    "boat house",
    "lamp room",
    "old archive",
    "engine shed",
    "upper store",
    "harbor office",
    "seed vault",
    "bell tower",
    "east cellar",
    "map room",
    "signal hut",
)


@dataclass(frozen=True, slots=True)
class Needle:
    """A place and the code that opens it, and the code it had before."""

    place: str
    code: str
    old_code: str

    def sentence(self, code: str) -> str:
        """The sentence that tells a code, as a paragraph of its own."""
        return f"The access code of the {self.place} is {code}."

    @property
    def question(self) -> str:
        """What the sentence answers."""
        return f"What is the access code of the {self.place}?"


def make_needle(seed: int) -> Needle:
    """A place and two different codes of four digits."""
    rng = random.Random(seed)
    code, old_code = rng.sample(range(1000, 10000), 2)
    return Needle(rng.choice(_PLACES), str(code), str(old_code))
