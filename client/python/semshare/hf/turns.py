"""Who may use a model: calls, one after the other, and a check where no call wants it."""

from __future__ import annotations

import threading
from types import TracebackType


class Turns:
    """`with turns:` is a call's turn; a call may take it again while it has it.

    A check takes `take_idle` and `give_back` instead, and asks `wanted` as often as it can: a call
    waits for it meanwhile. Thread-safe.
    """

    def __init__(self) -> None:
        self._turn = threading.RLock()
        # Never held while `_turn` is waited for.
        self._changed = threading.Condition()
        self._calls = 0  # Calls that have or want the turn. Guarded by _changed.
        self._closed = False  # Guarded by _changed.

    def __enter__(self) -> None:
        with self._changed:
            self._calls += 1
            self._changed.notify_all()
        self._turn.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._turn.release()
        with self._changed:
            self._calls -= 1
            self._changed.notify_all()

    def take_idle(self) -> bool:
        """Waits until no call has or wants the turn, and takes it; False once checks are over."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._calls == 0)
            if self._closed:
                return False
            # Free: a call is counted before it waits for the turn, and until it has given it back.
            self._turn.acquire()
            return True

    def give_back(self) -> None:
        """Ends a turn of `take_idle`, in the same thread."""
        self._turn.release()

    def wanted(self) -> bool:
        """Whether a check is to give its turn back."""
        with self._changed:
            return self._closed or self._calls > 0

    def close_checks(self) -> None:
        """From now on no check gets a turn, and one that runs is to end. Calls go on."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
