"""A broker of one's own: started on free ports, stopped whatever happens."""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, TracebackType

from semshare.client import BrokerError, Client

__all__ = ["Daemon", "DaemonError", "remove_store", "sigterm_interrupts"]

# The broker touches all of its memory before it answers, which takes long on a busy machine.
_START_S = 180.0
_STOP_S = 30.0
_POLL_S = 0.05
_TAIL_LINES = 20


class DaemonError(Exception):
    """The broker did not start, or stopped by itself; the message holds the end of its log."""


@contextlib.contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """SIGTERM raises `KeyboardInterrupt` meanwhile: otherwise it would end this process and leave
    its brokers running. For the main thread."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


class Daemon:
    """One `semshared` process over a data folder that outlives it. Not thread-safe.

    A context manager: leaving it stops the process. The process is in a session of its own, so
    that Ctrl-C reaches this program only, which then stops the broker in order.
    """

    def __init__(self, binary: Path, data_dir: Path, *flags: str) -> None:
        """Nothing is started yet. `flags` follow the ones that this class needs."""
        self.binary = binary
        self.data_dir = data_dir
        self.address = ""
        self._flags = flags
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = Path(tempfile.mkdtemp(prefix="semshare-"))
        self._log = self._folder / "semshared.log"

    def __enter__(self) -> Daemon:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def start(self) -> None:
        """Starts the broker and waits until it answers; `address` is then set.

        Raises `DaemonError` if the binary cannot be run, exits, or does not answer for three
        minutes; no process is left then.
        """
        address_file = self._folder / "address.json"
        address_file.unlink(missing_ok=True)
        self.data_dir.mkdir(parents=True, exist_ok=True)
        command = [str(self.binary), "--listen=127.0.0.1:0", "--metrics_listen=127.0.0.1:0"]
        command += [f"--data_dir={self.data_dir}", f"--address_file={address_file}", *self._flags]
        try:
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        except OSError as error:
            raise DaemonError(f"cannot run {self.binary}: {error}") from error
        try:
            self._wait(self._process, address_file)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> int:
        """Asks the broker to end (SIGTERM), kills it if it does not; returns its exit status.

        Idempotent: 0 if it was not running.
        """
        process, self._process = self._process, None
        if process is None:
            return 0
        process.terminate()
        try:
            return process.wait(timeout=_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def close(self) -> None:
        """Stops the broker and removes its log. The data folder stays."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def log_tail(self) -> str:
        """The last lines that the broker has logged."""
        try:
            lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            lines = []
        if not lines:
            return "  (its log is empty)"
        return "\n".join(f"  | {line}" for line in lines[-_TAIL_LINES:])

    def _wait(self, process: subprocess.Popen[bytes], address_file: Path) -> None:
        deadline = time.monotonic() + _START_S
        while not self._answers(address_file):
            status = process.poll()
            if status is not None:
                raise DaemonError(f"{self.binary} exited with {status}\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise DaemonError(
                    f"{self.binary} does not answer after {_START_S:.0f} s\n{self.log_tail()}"
                )
            time.sleep(_POLL_S)

    def _answers(self, address_file: Path) -> bool:
        try:
            address = json.loads(address_file.read_text(encoding="utf-8"))["grpc"]
        except (OSError, ValueError, KeyError):
            return False  # Not written yet, or not to its end.
        with Client(address, timeout_s=2.0) as client:
            try:
                client.server_info()
            except BrokerError:
                return False
        self.address = address
        return True


def remove_store(data_dir: Path) -> None:
    """Removes what a broker has stored in a data folder, and nothing else there.

    Raises `DaemonError`, with everything as it was, while a broker runs on it; `OSError` if it
    cannot be removed.
    """
    store = data_dir / "store"
    try:
        lock = (store / "LOCK").open("r+b")
    except FileNotFoundError:
        if store.exists():
            shutil.rmtree(store)
        return
    with lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # As RocksDB locks it.
        except OSError as error:
            raise DaemonError(
                f"a broker runs on {data_dir}: stop it, or give another --data_dir"
            ) from error
        shutil.rmtree(store)
