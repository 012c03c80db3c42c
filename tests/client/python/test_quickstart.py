"""The quickstart's course, its broker process, and what it says when something is wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from local_broker import LocalBroker
from test_eval import no_cost_gate, tiny, tiny_folder

import semshare
from semshare import Client
from semshare.quickstart import cli, scenario
from semshare.quickstart.daemon import Daemon, DaemonError, remove_store, sigterm_interrupts
from semshare.texts import PromptPair

__all__ = ["no_cost_gate", "tiny", "tiny_folder"]  # Fixtures.

ROOT = Path(semshare.__file__).parents[1]

# Answers GetServerInfo, logs how it was started, and ends (or not) on SIGTERM.
FAKE_SERVER = """#!{python}
import json, signal, sys
sys.path.insert(0, {root!r})
from concurrent.futures import ThreadPoolExecutor
import grpc
from semshare.v1 import cache_broker_pb2 as pb, cache_broker_pb2_grpc as pb_grpc

flags = dict(each.lstrip("-").split("=", 1) for each in sys.argv[1:])

class Servicer(pb_grpc.CacheBrokerServicer):
    def GetServerInfo(self, request, context):
        return pb.GetServerInfoResponse()

server = grpc.server(ThreadPoolExecutor(1))
pb_grpc.add_CacheBrokerServicer_to_server(Servicer(), server)
port = server.add_insecure_port(flags["listen"])
stubborn = flags.get("stubborn") == "yes"
signal.signal(signal.SIGTERM, (lambda *_: None) if stubborn else (lambda *_: server.stop(0)))
server.start()
with open(flags["address_file"], "w") as file:
    json.dump({{"grpc": f"127.0.0.1:{{port}}"}}, file)
print("data in", flags["data_dir"], flush=True)
server.wait_for_termination()
"""


def script(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.fixture
def fake_server(tmp_path: Path) -> Path:
    text = FAKE_SERVER.format(python=sys.executable, root=str(ROOT))
    return script(tmp_path / "fake", text)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_daemon_starts_restarts_and_stops(tmp_path: Path, fake_server: Path) -> None:
    data = tmp_path / "data"
    with Daemon(fake_server, data) as daemon:
        with Client(daemon.address) as client:
            client.server_info()
        assert f"data in {data}" in daemon.log_tail()
        process = daemon._process
        assert process is not None
        first = process.pid
        assert daemon.stop() == 0
        assert daemon.stop() == 0
        assert not is_running(first)
        daemon.start()
        with Client(daemon.address) as client:
            client.server_info()
        process = daemon._process
        assert process is not None
    assert process.returncode == 0
    assert data.is_dir()


def test_a_daemon_is_stopped_when_the_body_fails(tmp_path: Path, fake_server: Path) -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        Daemon(fake_server, tmp_path / "data") as daemon,
    ):
        process = daemon._process
        raise KeyboardInterrupt
    assert process is not None and process.returncode == 0


def test_sigterm_stops_the_daemon_too(tmp_path: Path, fake_server: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with (
        pytest.raises(KeyboardInterrupt),
        sigterm_interrupts(),
        Daemon(fake_server, tmp_path / "data") as daemon,
    ):
        process = daemon._process
        signal.raise_signal(signal.SIGTERM)
    assert process is not None and process.returncode == 0
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_daemon_that_ignores_the_signal_is_killed(
    tmp_path: Path, fake_server: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("semshare.quickstart.daemon._STOP_S", 0.01)
    with Daemon(fake_server, tmp_path / "data", "--stubborn=yes") as daemon:
        assert daemon.stop() == -9


def test_a_daemon_that_exits_shows_its_log(tmp_path: Path) -> None:
    lines = "\n".join(f"echo line {number}" for number in range(30))
    binary = script(tmp_path / "broken", f"#!/bin/sh\n{lines}\necho no space left >&2\nexit 3\n")
    with pytest.raises(DaemonError) as error, Daemon(binary, tmp_path / "data"):
        pass
    text = str(error.value)
    assert "exited with 3" in text
    assert text.endswith("| no space left")
    assert "line 5" not in text and "line 29" in text


def test_a_daemon_that_says_nothing_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("semshare.quickstart.daemon._START_S", 0.0)
    binary = script(tmp_path / "silent", "#!/bin/sh\nexec cat /dev/zero > /dev/null\n")
    with pytest.raises(DaemonError, match="does not answer") as error:
        Daemon(binary, tmp_path / "data").__enter__()
    assert "log is empty" in str(error.value)


def test_a_binary_that_cannot_run_is_an_error(tmp_path: Path) -> None:
    with (
        pytest.raises(DaemonError, match="cannot run"),
        Daemon(tmp_path / "none", tmp_path),
    ):
        pass


def test_missing_binaries_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        cli.main(["--semshared", str(tmp_path / "none"), "--data_dir", str(tmp_path)])
    assert exited.value.code == 2
    assert "build it first" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "are required"),
        (["--semshared", "x"], "are required"),
        (["--address", "x", "--data_dir", "y"], "goes without"),
        (["--address", "x", "--fresh"], "goes without"),
        (["--address", "x", "--threads", "0"], "--threads"),
    ],
)
def test_bad_command_lines(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exited:
        cli.main(arguments)
    assert exited.value.code == 2
    assert message in capsys.readouterr().err


def test_a_broken_broker_ends_the_quickstart_with_its_log(tmp_path: Path) -> None:
    binary = script(tmp_path / "broken", "#!/bin/sh\necho bad flag\nexit 1\n")
    command = [sys.executable, "-m", "semshare.quickstart", "--semshared", str(binary)]
    done = subprocess.run(
        [*command, "--data_dir", str(tmp_path / "data")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "bad flag" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def broker() -> Any:
    """Always the in-process one: the course must not hang on what a real one finds worth while."""
    return LocalBroker()


class Here:
    """A broker of this process in the places of `Daemon` and `Client`."""

    broker: Any = None
    starts = 0
    address = "here"

    def __init__(self, *_: Any) -> None:
        pass

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def start(self) -> None:
        type(self).starts += 1

    def stop(self) -> None:
        pass


class HereClient(Here):
    def __enter__(self) -> Any:
        return Here.broker


@pytest.fixture
def here(
    tmp_path: Path, broker: Any, tiny: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """Arguments for `cli.main` with which it runs in this process, short and on a tiny model."""
    monkeypatch.setattr(Here, "broker", broker)
    monkeypatch.setattr(Here, "starts", 0)
    monkeypatch.setattr(cli, "Daemon", Here)
    monkeypatch.setattr(cli, "Client", HereClient)
    monkeypatch.setattr(scenario, "DOCUMENT_TOKENS", 900)
    monkeypatch.setattr(scenario, "ANSWER_TOKENS", 3)
    monkeypatch.setattr(cli, "load_model", lambda name: tiny)
    binary = script(tmp_path / "semshared", "#!/bin/sh\n")
    ctl = script(tmp_path / "semsharectl", '#!/bin/sh\necho "references: one $*"\n')
    arguments = ["--semshared", str(binary), "--semsharectl", str(ctl)]
    return [*arguments, "--data_dir", str(tmp_path / "data")]


def test_the_course(here: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(here) == 0
    assert Here.starts == 1
    out = capsys.readouterr().out
    for pair in ("another system prompt in front", "an unrelated document"):
        assert out.count(pair) == 2  # Its section, and its row of the table.
    assert out.count("answer without") == out.count("answer with ") == len(scenario.ASKED)
    assert out.count("times faster") == len(scenario.ASKED) - 1
    assert "kind of match    exact_prefix" in out
    assert "kind of match    miss" in out
    assert "the same bit for bit" in out
    assert "references: one --address=here list" in out
    assert ". deploy/env.sh" in out and "python -m semshare.eval" in out
    # No terminal, no control characters.
    assert "\x1b" not in out and "\r" not in out


def test_a_running_broker_is_not_restarted(
    here: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Here.broker.server_info = lambda: None
    assert cli.main(["--address", "here"]) == 0
    assert Here.starts == 0
    out = capsys.readouterr().out
    assert out.count("times faster") == len(scenario.ASKED) - 1
    assert "found again" not in out


def test_a_store_that_fails_ends_the_quickstart(
    here: list[str],
    broker: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise semshare.BrokerError("RESOURCE_EXHAUSTED", "no room")

    monkeypatch.setattr(broker, "begin_put", refuse)
    assert cli.main(here) == 1
    assert "RESOURCE_EXHAUSTED: no room" in capsys.readouterr().err


def test_a_broker_that_forgets_is_reported(
    here: list[str],
    broker: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def forget(self: Here) -> None:
        broker.references = {model: {} for model in broker.references}

    monkeypatch.setattr(Here, "start", forget)
    assert cli.main(here) == 1
    assert "was not found" in capsys.readouterr().err


def test_a_prompt_that_is_not_reused_is_reported(
    here: list[str],
    broker: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise semshare.BrokerError("UNAVAILABLE", "gone")

    monkeypatch.setattr(broker, "find_match", fail)
    assert cli.main(here) == 1
    error = capsys.readouterr().err
    assert "'another question' was a fallback (UNAVAILABLE)" in error


def test_a_fallback_is_described_with_its_reason() -> None:
    answered = scenario.Answered(
        pair=PromptPair("words", "5 % of the words replaced", "a", "b", 7),
        tokens=4000,
        kind="fallback",
        matched_tokens=0,
        transport="",
        recomputed_share=1.07,
        reason="sigma",
        with_s=9.0,
        without_s=8.0,
        overhead_s=0.08,
        kl_first=0.0,
        answer_with="yes",
        answer_without="no",
        logits=torch.zeros(1),
    )
    text = scenario.describe(answered)
    assert "fallback (sigma)" in text
    assert "cost 1.0% of a full prefill" in text
    assert "107.0%" in text
    assert scenario.summary_row(answered)[-1] == "0"


def test_the_list_may_fail(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli._show_list(script(tmp_path / "ctl", "#!/bin/sh\necho nobody answers >&2\nexit 1\n"), "x")
    assert "nobody answers" in capsys.readouterr().out
    cli._show_list(tmp_path / "none", "x")
    assert "semsharectl list" in capsys.readouterr().err
    cli._show_list(None, "x")
    assert capsys.readouterr().out == ""


def test_the_steps_name_the_folder_in_use() -> None:
    steps = cli._next_steps(SimpleNamespace(data_dir="/some/where", model="smollm2", fresh=False))
    assert "--data_dir=/some/where" in steps and "--model smollm2" in steps
    assert "empties" not in steps
    fresh = SimpleNamespace(data_dir="/some/where", model="smollm2", fresh=True)
    assert "the next quickstart empties that store" in cli._next_steps(fresh)


@pytest.mark.skipif("SEMSHARE_SEMSHARED" not in os.environ, reason="needs the real broker")
def test_the_real_broker_keeps_its_folder(tmp_path: Path) -> None:
    binary = Path(os.environ["SEMSHARE_SEMSHARED"])
    with Daemon(binary, tmp_path / "data") as daemon:
        assert daemon.stop() == 0
        daemon.start()
        # A second quickstart may not take the store away from under it.
        with pytest.raises(DaemonError, match="a broker runs on"):
            remove_store(tmp_path / "data")
        with Client(daemon.address) as client:
            client.server_info()
    assert (tmp_path / "data" / "store" / "CURRENT").exists()
    (tmp_path / "data" / "mine").write_text("not the broker's")
    remove_store(tmp_path / "data")
    assert [each.name for each in (tmp_path / "data").iterdir()] == ["mine"]
    with Daemon(binary, tmp_path / "data"):
        pass


def test_a_store_in_use_is_left_alone(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    (store / "LOCK").touch()
    holding = "import fcntl, sys; f = open(sys.argv[1], 'r+b'); fcntl.lockf(f, fcntl.LOCK_EX)"
    script_text = f"{holding}; print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", script_text, str(store / "LOCK")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(DaemonError, match="stop it"):
            remove_store(tmp_path)
        assert (store / "LOCK").exists()
        other.communicate()
    remove_store(tmp_path)
    assert not store.exists()
    remove_store(tmp_path)
    remove_store(tmp_path / "none")


def test_the_script_deletes_nothing_itself() -> None:
    text = (ROOT.parents[1] / "deploy" / "quickstart.sh").read_text(encoding="utf-8")
    assert "rm -" not in text
    assert "--fresh" in text
