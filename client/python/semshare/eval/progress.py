"""Progress for people, on stderr: one line that changes on a terminal, plain lines elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

__all__ = ["Progress"]

_BAR_CELLS = 24


class Progress:
    """Shows what is going on. Not thread-safe.

    On a terminal one line is written over; where output goes to a file, each step is one line and
    there are no control characters.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._live = self._stream.isatty()
        self._dirty = False

    @property
    def live(self) -> bool:
        """Whether somebody watches on a terminal."""
        return self._live

    def __call__(self, text: str) -> None:
        """Says what begins now."""
        if self._live:
            self._over(text)
        else:
            self._write(text + "\n")

    def done(self) -> None:
        """Clears the changing line, before anything else is printed."""
        if self._dirty:
            self._over("")
            self._write("\r")
            self._dirty = False

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        """A step with its duration at the end: `text ... 3.2 s`."""
        begin = time.perf_counter()
        self(f"{text} ...")
        try:
            yield
        except BaseException:
            self.done()
            raise
        seconds = time.perf_counter() - begin
        self.done()
        self._write(
            f"{text} ... {seconds:.1f} s\n" if self._live else f"  done in {seconds:.1f} s\n"
        )

    @contextmanager
    def layers(self, model: Any, text: str) -> Iterator[None]:
        """A step with a bar that moves as the model's decoder layers are run.

        A forward hook per layer writes some eighty bytes, which is nothing beside a layer of a
        long prompt. Without a terminal, or for a model without a list of layers, it is `step`.
        """
        layers = getattr(model.get_decoder(), "layers", None) if self._live else None
        if not layers:
            with self.step(text):
                yield
            return
        count = len(layers)

        def show(place: int) -> None:
            cells = _BAR_CELLS * (place + 1) // count
            self._over(f"{text} [{'#' * cells}{'.' * (_BAR_CELLS - cells)}]")

        def hook(place: int) -> Any:
            return lambda *_: show(place)

        handles = [layer.register_forward_hook(hook(i)) for i, layer in enumerate(layers)]
        try:
            with self.step(text):
                yield
        finally:
            for handle in handles:
                handle.remove()

    def _over(self, text: str) -> None:
        width = shutil.get_terminal_size().columns - 1
        # Erase to the end of the line, so that a longer predecessor leaves nothing behind.
        self._write("\r" + text[:width] + "\x1b[K")
        self._dirty = bool(text)

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
