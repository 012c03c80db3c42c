"""The bundle's scripts: what is packed, and what run-check.sh says of a machine."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest
from commands import ROOT, run

BUNDLE = ROOT / "deploy" / "bundle.sh"
CHECK = ROOT / "deploy" / "bundle-check.sh"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """An unpacked bundle with one program, and tests that pass."""
    root = tmp_path / "a bundle"
    (root / "bin").mkdir(parents=True)
    (root / "lib").mkdir()
    shutil.copy(CHECK, root / "run-check.sh")
    shutil.copy("/bin/true", root / "bin" / "semshared")
    (root / "required-glibc").write_text("2.17\n")
    add_test(root, 0)
    return root


def add_test(bundle: Path, status: int) -> None:
    test = bundle / "bin" / "some_test"
    test.write_text(f"#!/bin/sh\necho ran; exit {status}\n")
    test.chmod(0o755)


def test_a_machine_that_has_all(bundle: Path) -> None:
    done = run(bundle / "run-check.sh")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "MISSING" not in done.stdout
    assert re.search(r"^ok +glibc \S+ \(needs 2\.17\)$", done.stdout, re.MULTILINE)
    assert "ran" not in done.stdout


def test_an_old_glibc_is_named(bundle: Path) -> None:
    (bundle / "required-glibc").write_text("99.1\n")
    done = run(bundle / "run-check.sh", "--run")
    assert done.returncode == 1
    assert re.search(r"^MISSING +glibc 99\.1 or newer", done.stdout, re.MULTILINE)
    assert "ran" not in done.stdout


@pytest.mark.skipif(shutil.which("patchelf") is None, reason="patchelf is not installed")
def test_a_missing_library_is_named(bundle: Path) -> None:
    program = bundle / "bin" / "semshared"
    assert run("patchelf", "--add-needed", "libnowhere.so.7", program).returncode == 0
    done = run(bundle / "run-check.sh")
    assert done.returncode == 1
    assert "MISSING  libraries of semshared: libnowhere.so.7" in done.stdout


def test_a_missing_gpu_is_a_failure_only_where_it_was_asked_for(bundle: Path) -> None:
    done = run(bundle / "run-check.sh")
    if "no GPU" not in done.stdout:
        pytest.skip("this machine has a driver and cuBLAS")
    assert done.returncode == 0
    assert run(bundle / "run-check.sh", "--cuda").returncode == 1


@pytest.mark.parametrize("status", [0, 3])
def test_tests_are_run_when_asked_for(bundle: Path, status: int) -> None:
    add_test(bundle, status)
    done = run(bundle / "run-check.sh", "--run")
    assert "ran" in done.stdout
    assert done.returncode == (0 if status == 0 else 1)


def test_words_that_it_does_not_know(bundle: Path) -> None:
    done = run(bundle / "run-check.sh", "--gpu")
    assert done.returncode == 2
    assert "--cuda" in done.stderr
    assert run(bundle / "run-check.sh", "--help").returncode == 0


def test_every_program_of_the_bundle_is_a_target() -> None:
    block = re.search(r"programs=\((.*?)\n\)", BUNDLE.read_text(), re.DOTALL)
    assert block is not None
    programs = block.group(1).split()
    assert {"server/semshared", "client/cpp/semsharectl", "tests/bench/cuda_bench"} <= set(programs)
    for program in programs:
        folder, name = os.path.split(program)
        text = (ROOT / folder / "CMakeLists.txt").read_text()
        assert re.search(rf"(NAME |add_executable\(){re.escape(name)}\b", text), program


def test_help_says_how() -> None:
    done = run(BUNDLE, "--help")
    assert done.returncode == 0
    assert "run-check.sh" in done.stdout
    assert "40 MiB" in done.stdout
