"""Which sources clang_tidy.py checks again."""

from __future__ import annotations

from pathlib import Path

import clang_tidy
import pytest

DEPS = """\
storage/a.cc.o: #deps 3, deps mtime 17 (VALID)
    {root}/storage/a.cc
    ../storage/a.h
    /usr/include/stdio.h

kernels/b.cc.o: #deps 1, deps mtime 18 (VALID)
    {root}/kernels/b.cc

"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(clang_tidy, "ROOT", tmp_path)
    for folder in ("storage", "build", "tests"):
        (tmp_path / folder).mkdir()
    (tmp_path / "storage/a.cc").write_text("int a;")
    (tmp_path / "storage/a.h").write_text("extern int a;")
    return tmp_path


def entry(root: Path) -> dict[str, str]:
    source = str(root / "storage/a.cc")
    return {"file": source, "command": f"g++ -I{root} -o storage/a.cc.o -c {source}"}


def test_deps_are_read(root: Path) -> None:
    deps = clang_tidy.parse_deps(DEPS.format(root=root))
    assert deps["kernels/b.cc.o"] == [f"{root}/kernels/b.cc"]
    assert len(deps["storage/a.cc.o"]) == 3
    assert clang_tidy.output_of(entry(root)) == "storage/a.cc.o"


def test_key_follows_source_header_command_and_settings(root: Path) -> None:
    deps = clang_tidy.parse_deps(DEPS.format(root=root))["storage/a.cc.o"]

    def key(settings: bytes = b"", **changes: str) -> str:
        return clang_tidy.key_of({**entry(root), **changes}, deps, settings, root / "build")

    keys = [key(), key(settings=b"other"), key(command="g++ -O3")]
    (root / "storage/a.h").write_text("extern long a;")
    keys.append(key())
    (root / "storage/a.cc").write_text("long a;")
    keys.append(key())
    assert len(set(keys)) == len(keys)
    assert key() == keys[-1]


def test_generated_code_and_tests_are_left_out(root: Path) -> None:
    assert clang_tidy.is_ours(root / "storage/a.cc")
    assert not clang_tidy.is_ours(root / "kernels/cuda/a.cu")
    assert not clang_tidy.is_ours(root / "tests/storage/a_test.cc")
    assert not clang_tidy.is_ours(root / "build/release/proto/gen/a.pb.cc")
    assert not clang_tidy.is_ours(Path("/usr/include/a.cc"))
