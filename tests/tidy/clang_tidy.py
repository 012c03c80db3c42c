"""Runs clang-tidy over the sources that changed since it last passed.

A source is checked again when anything that it is made of changed: itself, a header of the
repository that it includes (as the build recorded), its compile command, or clang-tidy and its
settings. A stamp named by the hash of all that says that it passed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("proto/", "kernels/", "storage/", "server/", "client/cpp/")
STAMP_DAYS_MAX = 30


def parse_deps(text: str) -> dict[str, list[str]]:
    """Reads `ninja -t deps`: the files that each object was made of, as ninja names them."""
    deps: dict[str, list[str]] = {}
    current: list[str] = []
    for line in text.splitlines():
        if line.startswith(" "):
            current.append(line.strip())
        elif ": #deps" in line:
            current = deps.setdefault(line.split(": #deps")[0], [])
    return deps


def is_ours(source: Path) -> bool:
    """Whether clang-tidy should look at a source.

    Generated code and tests are left out, and .cu: clang 14 does not know today's CUDA.
    """
    if not source.is_relative_to(ROOT) or source.suffix == ".cu":
        return False
    return source.relative_to(ROOT).as_posix().startswith(FOLDERS)


def output_of(entry: dict[str, str]) -> str:
    """The object that a compile command makes, as ninja names it."""
    words = shlex.split(entry["command"])
    return words[words.index("-o") + 1] if "-o" in words else ""


def key_of(entry: dict[str, str], deps: list[str], settings: bytes, build: Path) -> str:
    """The hash of everything that decides what clang-tidy says about a source."""
    digest = hashlib.sha256(settings)
    digest.update(entry["command"].replace(str(ROOT), ".").encode())
    files = {(build / dep).resolve() for dep in deps} | {Path(entry["file"])}
    for file in sorted(file for file in files if file.is_relative_to(ROOT)):
        digest.update(b"\0" + str(file.relative_to(ROOT)).encode() + b"\0")
        digest.update(file.read_bytes())
    return digest.hexdigest()


def changed_sources(
    build: Path, stamps: Path, settings: bytes
) -> Iterator[tuple[Path, Path | None]]:
    """Each source to check, with the stamp that it earns; None where the build tells no headers."""
    text = subprocess.run(
        ["ninja", "-C", str(build), "-t", "deps"], capture_output=True, text=True, check=True
    ).stdout
    deps = parse_deps(text)
    for entry in json.loads((build / "compile_commands.json").read_text()):
        source = Path(entry["file"])
        if not is_ours(source):
            continue
        known = deps.get(output_of(entry))
        stamp = stamps / key_of(entry, known, settings, build) if known else None
        if stamp is not None and stamp.exists():
            stamp.touch()
            continue
        yield source, stamp


def check(build: Path, source: Path, stamp: Path | None) -> bool:
    """Runs clang-tidy; prints what it finds; leaves a stamp if that is nothing."""
    began = time.monotonic()
    command = ["clang-tidy", "-p", str(build), "--quiet", str(source)]
    command.append("--extra-arg=-Wno-unknown-warning-option")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    passed = done.returncode == 0
    verdict = "ok" if passed else "FAILED"
    findings = "" if passed else f"\n{done.stdout}{done.stderr}"
    name = source.relative_to(ROOT)
    print(f"{name}: {verdict}, {time.monotonic() - began:.0f} s{findings}", flush=True)
    if passed and stamp is not None:
        stamp.touch()
    return passed


def drop_old_stamps(stamps: Path) -> None:
    """Removes stamps that no run has used for a while."""
    oldest = time.time() - STAMP_DAYS_MAX * 24 * 3600
    for stamp in stamps.iterdir():
        if stamp.stat().st_mtime < oldest:
            stamp.unlink(missing_ok=True)


def main() -> int:
    """Returns 1 if clang-tidy found something."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--build", type=Path, required=True, help="a built folder with its database"
    )
    parser.add_argument("--stamps", type=Path, required=True, help="where to note what has passed")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    build, stamps = options.build.resolve(), options.stamps
    stamps.mkdir(parents=True, exist_ok=True)
    drop_old_stamps(stamps)
    if shutil.which("clang-tidy") is None:
        parser.error("clang-tidy is not installed: deploy/setup.sh check")
    version = subprocess.run(["clang-tidy", "--version"], capture_output=True, check=True).stdout
    settings = version + (ROOT / ".clang-tidy").read_bytes()
    sources = list(changed_sources(build, stamps, settings))
    print(f"{len(sources)} sources are new or changed", flush=True)
    with ThreadPoolExecutor(options.jobs) as pool:
        results = list(pool.map(lambda pair: check(build, *pair), sources))
    print(f"{sum(results)} passed, {len(results) - sum(results)} did not")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
