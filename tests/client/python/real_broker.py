"""A `semshared` process under test: started, asked, told to stop or killed, and started again."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from types import TracebackType

import grpc
import pytest

from semshare import Client
from semshare.v1 import cache_admin_pb2 as admin
from semshare.v1 import cache_admin_pb2_grpc as admin_grpc

BINARY = os.environ.get("SEMSHARE_SEMSHARED", "")

needs_semshared = pytest.mark.skipif(not BINARY, reason="SEMSHARE_SEMSHARED names no binary")


class RealBroker:
    """One data folder and, between `start` and `stop` or `kill`, one process over it.

    `flags` follow the ones that any test needs; without them every gate is as delivered. Not
    thread-safe.
    """

    def __init__(self, folder: Path, *flags: str) -> None:
        self.folder = folder
        self.flags = flags
        self.address_file = folder / "address.json"
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> RealBroker:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process is not None:
            self.kill()

    @property
    def address(self) -> str:
        return str(json.loads(self.address_file.read_text())["grpc"])

    def log(self) -> str:
        return (self.folder / "semshared.log").read_text(errors="replace")

    def start(self) -> None:
        """Returns once the server listens: it says so by writing the address file, atomically."""
        self.address_file.unlink(missing_ok=True)
        command = [
            BINARY,
            "--listen=127.0.0.1:0",
            "--metrics_listen=127.0.0.1:0",
            f"--data_dir={self.folder / 'data'}",
            f"--device_memory_bytes={1 << 28}",
            f"--address_file={self.address_file}",
            *self.flags,
        ]
        with (self.folder / "semshared.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        while not self.address_file.exists():
            try:
                self.process.wait(timeout=0.02)
            except subprocess.TimeoutExpired:
                continue
            status, self.process = self.process.returncode, None
            raise RuntimeError(f"semshared ended with {status}: {self.log()[-2000:]}")

    def terminate(self) -> None:
        """SIGTERM, without waiting."""
        assert self.process is not None
        self.process.terminate()

    def wait(self, timeout_s: float = 30.0) -> int:
        """The exit status."""
        assert self.process is not None
        status = self.process.wait(timeout=timeout_s)
        self.process = None
        return status

    def stop(self) -> int:
        self.terminate()
        return self.wait()

    def kill(self) -> None:
        """SIGKILL, and the process is gone when this returns."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.process = None

    def client(self, timeout_s: float = 10.0) -> Client:
        return Client(self.address, timeout_s=timeout_s)

    def stats(self) -> admin.StatsResponse:
        with grpc.insecure_channel(self.address) as channel:
            return admin_grpc.CacheAdminStub(channel).Stats(admin.StatsRequest(), timeout=10)
