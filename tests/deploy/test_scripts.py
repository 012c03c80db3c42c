"""The scripts of deploy/ and tests/, as far as they can be run without installing anything."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest
from commands import ROOT, run

DEPLOY = ROOT / "deploy"
SHELLS = [
    pytest.param(name, marks=pytest.mark.skipif(shutil.which(name) is None, reason="not installed"))
    for name in ("bash", "dash", "zsh")
]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone with stand-ins for what is built, and a home with one for the environment."""
    root = tmp_path / "a clone"
    (root / "deploy").mkdir(parents=True)
    shutil.copy(DEPLOY / "env.sh", root / "deploy")
    for program in (
        root / "build/release/server/semshared",
        root / "build/release/client/cpp/semsharectl",
        tmp_path / "home/.cache/semshare/venv/bin/python",
    ):
        program.parent.mkdir(parents=True)
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    return root


PRINT = """
echo status=$?
for program in semshared semsharectl python; do command -v $program || :; done
echo $PATH
"""


@pytest.mark.parametrize("shell", SHELLS)
def test_env_puts_programs_on_path(shell: str, clone: Path, tmp_path: Path) -> None:
    # dash does not tell a sourced file its name, so it has to be inside of the clone.
    cwd = clone / "build" if shell == "dash" else tmp_path
    script = f". '{clone}/deploy/env.sh'; . '{clone}/deploy/env.sh'; {PRINT}"
    done = run(shell, "-euc", script, cwd=cwd, HOME=str(tmp_path / "home"))
    lines = done.stdout.splitlines()
    assert lines[:4] == [
        "status=0",
        f"{clone}/build/release/server/semshared",
        f"{clone}/build/release/client/cpp/semsharectl",
        f"{tmp_path}/home/.cache/semshare/venv/bin/python",
    ]
    assert lines[4].count("build/release/server") == 1, "sourcing it twice must not add twice"
    assert done.stderr == ""


@pytest.mark.parametrize("shell", SHELLS)
def test_env_says_what_is_missing(shell: str, clone: Path, tmp_path: Path) -> None:
    (clone / "build/release/server/semshared").unlink()
    script = f". '{clone}/deploy/env.sh'; {PRINT}"
    done = run(shell, "-c", script, cwd=clone, HOME=str(tmp_path / "home"))
    assert "status=1" in done.stdout
    assert f"{clone}/build/release/client/cpp/semsharectl" in done.stdout
    assert "not there yet: semshared\n" in done.stderr
    assert "deploy/quickstart.sh" in done.stderr


def test_env_in_dash_from_elsewhere(clone: Path, tmp_path: Path) -> None:
    home = str(tmp_path / "home")
    script = f". '{clone}/deploy/env.sh'; {PRINT}"
    lost = run("dash", "-c", script, cwd=tmp_path, HOME=home)
    assert "set SEMSHARE_ROOT" in lost.stderr
    found = run("dash", "-c", script, cwd=tmp_path, HOME=home, SEMSHARE_ROOT=str(clone))
    assert "status=0" in found.stdout


@pytest.mark.parametrize("script", ["deploy/setup.sh", "deploy/quickstart.sh", "tests/run.sh"])
def test_scripts_explain_themselves(script: str) -> None:
    done = run("bash", script, "--help")
    assert done.returncode == 0
    assert script in done.stdout


def test_setup_refuses_unknown_parts() -> None:
    done = run("bash", "deploy/setup.sh", "pyhton")
    assert done.returncode == 1
    assert "no part 'pyhton'" in done.stderr


def fake_path(tmp_path: Path, **programs: str) -> str:
    """A PATH whose first folder has these programs, given as shell scripts."""
    folder = tmp_path / "bin"
    folder.mkdir(exist_ok=True)
    for name, script in programs.items():
        program = folder / name.replace("_", "-")
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def test_setup_installs_only_what_is_missing(tmp_path: Path) -> None:
    path = fake_path(
        tmp_path,
        dpkg_query='case "$3" in mold | cmake) exit 1 ;; esac; echo installed',
        apt_get=f'echo "$@" >> "{tmp_path}/apt"',
        id="echo 0",
    )
    done = run("bash", "deploy/setup.sh", "build", PATH=path, HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    update, install = (tmp_path / "apt").read_text().splitlines()
    assert update.endswith(" update")
    assert install.endswith("--no-install-recommends cmake mold")


def test_setup_explains_a_failed_installation(tmp_path: Path) -> None:
    path = fake_path(
        tmp_path, dpkg_query="exit 1", apt_get='echo "E: no such host"; exit 100', id="echo 0"
    )
    done = run("bash", "deploy/setup.sh", "runtime", PATH=path, HOME=str(tmp_path))
    assert done.returncode == 1
    assert "E: no such host" in done.stderr
    assert "Is the network up" in done.stderr


def test_setup_asks_for_root(tmp_path: Path) -> None:
    path = fake_path(tmp_path, dpkg_query="exit 1", id="echo 1000", sudo="exit 1")
    done = run("bash", "deploy/setup.sh", "runtime", PATH=path, HOME=str(tmp_path))
    assert done.returncode == 1
    assert "apt-get install --no-install-recommends" in done.stderr


def fake_uv(home: Path, script: str) -> Path:
    """An installed uv of the version that setup.sh wants; the corpus folder of this home."""
    version = re.search(r"uv_version=(\S+)", (DEPLOY / "setup.sh").read_text())
    assert version is not None
    uv = home / ".cache/semshare/uv/bin/uv"
    uv.parent.mkdir(parents=True)
    uv.write_text(
        f'#!/bin/sh\nif [ "$1" = --version ]; then echo "uv {version[1]}"; exit; fi\n{script}\n'
    )
    uv.chmod(0o755)
    return home / ".cache/semshare/corpus"


def test_setup_report_installs_each_source_once(tmp_path: Path) -> None:
    path = fake_path(tmp_path, dpkg_query="echo installed")
    home = tmp_path / "home"
    log = tmp_path / "uv"
    # The folder is the word after --target, the package the last one.
    corpus = fake_uv(
        home,
        f'while [ "$1" != --target ]; do shift; done\nmkdir -p "$2"; echo "$3" >> "{log}"',
    )
    for _ in range(2):
        done = run("bash", "deploy/setup.sh", "report", PATH=path, HOME=str(home))
        assert done.returncode == 0, done.stderr
    installed = log.read_text().split()
    listed = re.findall(r"(?m)^\w+==\S+$", (DEPLOY / "report-sources.txt").read_text())
    assert installed == listed and len(listed) > 1
    assert sorted(p.name for p in corpus.iterdir()) == [s.replace("==", "-") for s in listed]


def test_setup_report_leaves_nothing_partial(tmp_path: Path) -> None:
    path = fake_path(tmp_path, dpkg_query="echo installed")
    home = tmp_path / "home"
    corpus = fake_uv(home, 'echo "no such host" >&2; exit 2')
    done = run("bash", "deploy/setup.sh", "report", PATH=path, HOME=str(home))
    assert done.returncode == 1
    assert "no such host" in done.stderr and "could not be installed from PyPI" in done.stderr
    assert not list(corpus.iterdir())


def test_run_refuses_unknown_phases() -> None:
    done = run("bash", "tests/run.sh", "relaese")
    assert done.returncode == 1
    assert "no phase 'relaese'" in done.stderr


# ---- tests/run.sh's sums, with stand-ins for the test runners. ----


def sums(
    tmp_path: Path, ctest: str, pytest_output: str, status: int, *, gtest: str = "", after: str = ""
) -> tuple[int, str]:
    """Runs the phases release and pytest of a copy of tests/run.sh; status and last line.

    `gtest` is what the binaries print, `after` what ctest adds to its closing line.
    """
    root = tmp_path / "clone"
    for folder in ("deploy", "tests"):
        (root / folder).mkdir(parents=True)
    shutil.copy(DEPLOY / "common.sh", root / "deploy")
    shutil.copy(ROOT / "tests" / "run.sh", root / "tests")
    own_log = root / "build" / "release" / "Testing" / "Temporary" / "LastTest.log"
    own_log.parent.mkdir(parents=True)
    own_log.write_text("[  SKIPPED ] 99 tests, listed below:\n")  # Of an earlier run.
    run_tests = f"echo '{ctest}'; echo '{after}'; echo '{gtest}' > '{own_log}'; exit {status}"
    path = fake_path(tmp_path, cmake="exit 0", ctest=run_tests)
    python = tmp_path / ".cache/semshare/venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/sh\necho '{pytest_output}'\nexit {status}\n")
    python.chmod(0o755)
    script = root / "tests" / "run.sh"
    done = run("bash", str(script), "release", "pytest", PATH=path, HOME=str(tmp_path), CI="true")
    lines = done.stdout.splitlines()
    assert ctest in lines[-3:]
    return done.returncode, lines[-1]


def test_run_sums_what_passed(tmp_path: Path) -> None:
    ctest = "100% tests passed, 0 tests failed out of 40"
    assert sums(tmp_path, ctest, "12 passed in 3.45s", 0) == (0, "52 passed, 0 failed")


def test_run_counts_what_was_skipped(tmp_path: Path) -> None:
    ctest = "100% tests passed, 0 tests failed out of 40"
    after = "\nThe following tests did not run:\n\t 7 - a_test (Skipped)\n\t 12 - b_test (Skipped)"
    gtest = (
        "[  SKIPPED ] Mutex.Canary (0 ms)\n[  PASSED  ] 5 tests.\n"
        "[  SKIPPED ] 1 test, listed below:\n[  SKIPPED ] Mutex.Canary\n"
        "[  SKIPPED ] 3 tests, listed below:\n"
    )
    output = "12 passed, 4 skipped in 3.45s"
    found = sums(tmp_path, ctest, output, 0, gtest=gtest, after=after)
    assert found == (0, "50 passed, 0 failed, 10 skipped")


def test_run_sums_what_failed(tmp_path: Path) -> None:
    ctest = "95% tests passed, 2 tests failed out of 40"
    output = "1 failed, 10 passed, 2 errors in 63.45s (0:01:03)"
    assert sums(tmp_path, ctest, output, 1) == (1, "48 passed, 5 failed")


def test_run_counts_a_crash(tmp_path: Path) -> None:
    ctest = "100% tests passed, 0 tests failed out of 40"
    assert sums(tmp_path, ctest, "Segmentation fault", 139) == (1, "40 passed, 2 failed")


# ---- What the scripts and lists say. ----


def test_ci_calls_the_tests_and_nothing_else() -> None:
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == [
        'exec bash "$(dirname "${BASH_SOURCE[0]}")/../tests/run.sh"'
    ]


def pinned(name: str) -> dict[str, str]:
    lines = (DEPLOY / name).read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def test_requirements_are_pinned_and_complete() -> None:
    installed, wanted = pinned("requirements.txt"), pinned("requirements.in")
    assert wanted.items() <= installed.items()
    lines = (DEPLOY / "requirements-excluded.txt").read_text().splitlines()
    excluded = {line for line in lines if line and not line.startswith("#")}
    assert not excluded & set(installed)
    assert set(pinned("requirements-gpu.txt")) <= excluded


def test_readme_names_scripts_that_exist() -> None:
    text = (ROOT / "README.md").read_text()
    named = set(re.findall(r"\b(?:deploy|tests)/[\w-]+\.sh\b", text))
    assert {"deploy/quickstart.sh", "tests/run.sh", "deploy/env.sh"} <= named
    for name in named:
        assert (ROOT / name).is_file(), name
