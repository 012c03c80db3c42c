"""The compose file and the Dockerfile against the specification and against the code.

There may be no Docker engine where this runs, so nothing is built: what can be wrong is compared
with what the code says.
"""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from dockerfile import Stage, read_stages

ROOT = Path(__file__).resolve().parents[2]
COMPOSE_FILE = ROOT / "docker-compose.yml"
SPECIFICATION = Path("/usr/lib/python3/dist-packages/compose/config/compose_spec.json")
FLAG_FILE = ROOT / "deploy" / "semshared.flags"
DEFAULT_ADDRESS = "127.0.0.1:7700"
DEFAULT_METRICS_ADDRESS = "127.0.0.1:7701"

Services = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded = yaml.safe_load(COMPOSE_FILE.read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> Services:
    found: Services = compose["services"]
    return found


@pytest.fixture(scope="module")
def stages() -> dict[str, Stage]:
    return read_stages(ROOT / "deploy" / "Dockerfile")


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    if not SPECIFICATION.exists():
        pytest.skip("Debian's docker-compose, which brings the specification, is not installed")
    loaded: dict[str, Any] = json.loads(SPECIFICATION.read_text(encoding="utf-8"))
    return loaded


def stage_of(service: dict[str, Any], stages: dict[str, Stage]) -> Stage:
    return stages[service["build"]["target"]]


def brokers(services: Services) -> list[dict[str, Any]]:
    return [service for name, service in services.items() if name.startswith("broker")]


def flags_of(words: list[str]) -> dict[str, str]:
    """`--name=value` words as a dictionary; every word must be one."""
    assert all(word.startswith("--") for word in words), words
    return {name: value for name, _, value in (word[2:].partition("=") for word in words)}


def flag_file() -> dict[str, str]:
    lines = FLAG_FILE.read_text(encoding="utf-8").splitlines()
    return flags_of([line for line in lines if line and not line.startswith("#")])


def daemon_flags() -> set[str]:
    """The flags that semshared's sources define, and the one that Abseil brings."""
    pattern = re.compile(r"ABSL_FLAG\(\s*[^,]+,\s*(\w+)\s*,")
    found = {
        name
        for source in sorted((ROOT / "server").rglob("*.cc"))
        for name in pattern.findall(source.read_text(encoding="utf-8"))
    }
    assert found, "server/ defines no flags"
    return found | {"flagfile"}


def check(compose: dict[str, Any], schema: dict[str, Any]) -> None:
    # Named here because the schema names its draft with a trailing '#'.
    jsonschema.Draft201909Validator(schema).validate(compose)


def test_specification_accepts_the_file(compose: dict[str, Any], schema: dict[str, Any]) -> None:
    check(compose, schema)


def test_specification_can_refuse(compose: dict[str, Any], schema: dict[str, Any]) -> None:
    wrong = copy.deepcopy(compose)
    wrong["services"]["broker"]["healthchek"] = {}
    with pytest.raises(jsonschema.ValidationError):
        check(wrong, schema)


@pytest.mark.parametrize("profile", [[], ["--profile", "gpu"]])
def test_docker_compose_reads_the_file(profile: list[str]) -> None:
    if shutil.which("docker-compose") is None:
        pytest.skip("Debian's docker-compose is not installed")
    command = ["docker-compose", "-f", str(COMPOSE_FILE), *profile, "config"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert {"broker", "worker"} <= set(yaml.safe_load(done.stdout)["services"])


def test_images_are_built_from_stages_that_exist(
    services: Services, stages: dict[str, Stage]
) -> None:
    version = re.search(r"VERSION (\d+\.\d+\.\d+)", (ROOT / "CMakeLists.txt").read_text())
    assert version is not None
    for service in services.values():
        build = service["build"]
        assert (ROOT / build["context"] / build["dockerfile"]).is_file()
        assert build["target"] in stages
        assert service["image"].endswith(f":{version[1]}")


def test_bases_are_pinned(stages: dict[str, Stage]) -> None:
    for stage in stages.values():
        assert re.fullmatch(r"debian:12\.\d+(-slim)?", stage.base), stage.base


def test_copied_files_exist(stages: dict[str, Stage]) -> None:
    for stage in stages.values():
        for copied in stage.copies:
            for source in copied.sources:
                if copied.stage:
                    assert copied.stage in stages
                    assert source.startswith("/src/build/release/")
                else:
                    assert (ROOT / source).exists(), source


def test_copied_binaries_are_where_the_build_puts_them(stages: dict[str, Stage]) -> None:
    copied = {copy.destination: copy.sources[0] for copy in stages["broker"].copies if copy.stage}
    assert copied == {
        "/usr/local/bin/semshared": "/src/build/release/server/semshared",
        "/usr/local/bin/semsharectl": "/src/build/release/client/cpp/semsharectl",
    }
    for source in copied.values():
        folder = Path(source.removeprefix("/src/build/release/")).parent
        lists = (ROOT / folder / "CMakeLists.txt").read_text(encoding="utf-8")
        assert f"add_executable({Path(source).name} " in lists


def test_context_lets_through_what_is_copied(stages: dict[str, Stage]) -> None:
    lines = (ROOT / "deploy" / "Dockerfile.dockerignore").read_text().splitlines()
    allowed = {line[1:] for line in lines if line.startswith("!")}
    for stage in stages.values():
        for copied in stage.copies:
            if not copied.stage:
                assert {Path(source).parts[0] for source in copied.sources} <= allowed


def test_setup_finds_its_lists(stages: dict[str, Stage]) -> None:
    for stage in stages.values():
        given = {Path(source).name for copied in stage.copies for source in copied.sources}
        for word, text in stage.instructions:
            for part in re.findall(r"deploy/setup\.sh (\w+)", text) if word == "RUN" else []:
                wanted = "requirements.txt" if part == "python" else f"packages-{part}.txt"
                assert {"setup.sh", "common.sh", wanted} <= given, stage.name


def test_containers_are_not_root(services: Services, stages: dict[str, Stage]) -> None:
    for service in services.values():
        assert stage_of(service, stages).last("USER") == "semshare"
        assert service["cap_drop"] == ["ALL"]
        assert not service.get("privileged")


def test_brokers_flags_exist(services: Services, stages: dict[str, Stage]) -> None:
    known = daemon_flags()
    assert set(flag_file()) <= known
    for broker in brokers(services):
        flags = flags_of(broker["command"])
        assert set(flags) <= known
        assert stage_of(broker, stages).provides(flags["flagfile"])
    assert set(flags_of(stages["broker"].words("CMD"))) <= known


def test_brokers_stay_on_loopback(services: Services) -> None:
    flags = flag_file()
    assert flags["listen"] == DEFAULT_ADDRESS
    assert flags["metrics_listen"] == DEFAULT_METRICS_ADDRESS
    for service in services.values():
        assert "ports" not in service
    for broker in brokers(services):
        assert not {"listen", "metrics_listen"} & set(flags_of(broker["command"]))


def test_addresses_are_the_defaults_of_the_code() -> None:
    sources = [path.read_text() for path in sorted((ROOT / "server").rglob("*.cc"))]
    sources += [path.read_text() for path in sorted((ROOT / "server").rglob("*.h"))]
    for address in (DEFAULT_ADDRESS, DEFAULT_METRICS_ADDRESS):
        assert any(address in source for source in sources), address
    client = "\n".join(path.read_text() for path in (ROOT / "client" / "cpp").rglob("*.cc"))
    assert DEFAULT_ADDRESS in client
    for guide in (ROOT / "README.md", ROOT / "client" / "python" / "README.md"):
        named = re.findall(r'Client\("([^"]+)"\)', guide.read_text())
        assert named == [DEFAULT_ADDRESS], guide


def test_data_is_in_a_volume(compose: dict[str, Any], services: Services) -> None:
    names = []
    for broker in brokers(services):
        data, socket = (volume.split(":") for volume in broker["volumes"])
        assert data[1] == flag_file()["data_dir"]
        assert socket[1] == str(Path(flag_file()["shm_socket"]).parent)
        names += [data[0], socket[0]]
    # Two brokers must not share a folder.
    assert sorted(names) == sorted(compose["volumes"])
    assert len(set(names)) == len(names)


def test_worker_reaches_the_brokers_socket(services: Services, stages: dict[str, Stage]) -> None:
    """On a volume of both, at one path, and through the broker's group."""
    worker, broker = services["worker"], services["broker"]
    (volume,) = worker["volumes"]
    assert volume in broker["volumes"]
    assert "shm_group_access" in flag_file()
    setup = " ".join(text for word, text in stages["broker"].instructions if word == "RUN")
    (gid,) = worker["group_add"]
    assert f"groupadd --system --gid {gid} semshare" in setup
    assert f"--gid {gid} " in setup[setup.index("useradd") :]
    folder = volume.split(":")[1]
    assert re.search(rf"install -d -o semshare -g semshare -m 0750 [^&]*{folder}(\s|$)", setup)


def test_health_check_asks_the_tool(services: Services, stages: dict[str, Stage]) -> None:
    source = "\n".join(path.read_text() for path in (ROOT / "client" / "cpp").rglob("*.cc"))
    for broker in brokers(services):
        kind, binary, address, command = broker["healthcheck"]["test"]
        assert kind == "CMD"
        assert stage_of(broker, stages).provides(binary)
        assert address == f"--address={flag_file()['listen']}"
        assert f'"{command}"' in source
        assert '"address"' in source


def test_worker_shares_the_brokers_network(services: Services) -> None:
    worker = services["worker"]
    assert worker["network_mode"] == "service:broker"
    assert worker["depends_on"] == {"broker": {"condition": "service_healthy"}}
    assert worker["restart"] == "no"


def test_workers_command_exists(services: Services, stages: dict[str, Stage]) -> None:
    module, *arguments = services["worker"]["command"]
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT / "client" / "python")},
    )
    assert done.returncode == 0, done.stderr
    for flag in flags_of(arguments):
        assert f"--{flag}" in done.stdout
    assert flags_of(arguments)["address"] == flag_file()["listen"]
    assert stages["worker"].words("ENTRYPOINT")[1:] == ["-u", "-m"]


def test_workers_threads_spin_for_a_moment_only(stages: dict[str, Stage]) -> None:
    variables = " ".join(text for word, text in stages["worker"].instructions if word == "ENV")
    assert {"OMP_WAIT_POLICY=PASSIVE", "GOMP_SPINCOUNT=10000"} <= set(variables.split())


def test_gpu_profile_reserves_a_device(services: Services) -> None:
    gpu = services["broker-gpu"]
    assert gpu["profiles"] == ["gpu"]
    assert flags_of(gpu["command"])["backend"] == "cuda"
    (device,) = gpu["deploy"]["resources"]["reservations"]["devices"]
    assert device["driver"] == "nvidia"
    assert "gpu" in device["capabilities"]
    # What the plain `docker compose up` starts needs no profile.
    assert [name for name, service in services.items() if "profiles" not in service] == [
        "broker",
        "worker",
    ]


# ---- With the binaries, where they are built. ----


def binary(variable: str) -> str:
    path = os.environ.get(variable, "")
    if not os.access(path, os.X_OK):
        pytest.skip(f"{variable} names no binary")
    return path


@pytest.fixture
def semshared() -> str:
    return binary("SEMSHARE_SEMSHARED")


@pytest.fixture
def semsharectl() -> str:
    return binary("SEMSHARE_SEMSHARECTL")


def test_runtime_packages_cover_the_libraries(semshared: str, semsharectl: str) -> None:
    lines = (ROOT / "deploy" / "packages-runtime.txt").read_text().splitlines()
    listed = [line for line in lines if line and not line.startswith("#")]
    command = ["apt-cache", "depends", "--recurse", "--no-recommends", "--no-suggests"]
    command += ["--no-conflicts", "--no-breaks", "--no-replaces", "--no-enhances", *listed]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    covered = {word.removesuffix(":amd64") for word in re.findall(r"[\w.+:-]+", done.stdout)}
    if done.returncode != 0:
        pytest.skip(f"apt-cache does not know the packages here: {done.stderr[-200:]}")
    for path in (semshared, semsharectl):
        linked = subprocess.run(["ldd", path], capture_output=True, text=True, check=True).stdout
        assert "not found" not in linked
        for library in re.findall(r"=> (/\S+)", linked):
            assert owner(library) in covered, f"{library} of {path}"


def owner(library: str) -> str:
    """The Debian package of a library. dpkg knows files by the path before /usr was merged too."""
    real = os.path.realpath(library)
    names = {library, real, library.removeprefix("/usr"), real.removeprefix("/usr")}
    # An alternative, such as the BLAS of choice, belongs to no package by its first name.
    for name in sorted(names):
        done = subprocess.run(["dpkg", "-S", name], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return done.stdout.split(":")[0]
    return f"no package ({library})"


def test_flag_file_starts_a_healthy_broker(
    semshared: str, semsharectl: str, tmp_path: Path
) -> None:
    address_file = tmp_path / "address.json"
    command = [semshared, f"--flagfile={FLAG_FILE}", "--listen=127.0.0.1:0"]
    command += ["--metrics_listen=127.0.0.1:0", f"--data_dir={tmp_path / 'data'}"]
    command.append(f"--shm_socket={tmp_path / 'shm.sock'}")
    command += [f"--address_file={address_file}", "--device_memory_bytes=67108864"]
    with (tmp_path / "log").open("wb") as log:
        daemon = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        address = wait_for_address(daemon, address_file)
        health = [semsharectl, f"--address={address}", "health"]
        done = subprocess.run(health, capture_output=True, text=True, timeout=20, check=False)
        assert done.returncode == 0, done.stderr
        # The group of the file is what opens it to workers of another user.
        assert stat.S_IMODE((tmp_path / "shm.sock").stat().st_mode) == 0o660
    finally:
        daemon.terminate()
        status = daemon.wait(timeout=60)
    assert status == 0, (tmp_path / "log").read_text()


def wait_for_address(daemon: subprocess.Popen[bytes], address_file: Path) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert daemon.poll() is None, "semshared ended"
        try:
            return str(json.loads(address_file.read_text())["grpc"])
        except (OSError, ValueError, KeyError):
            time.sleep(0.05)
    raise AssertionError("semshared wrote no address file")


def test_health_check_fails_without_a_broker(semsharectl: str) -> None:
    # Port 1 is privileged and unused.
    health = [semsharectl, "--address=127.0.0.1:1", "health"]
    done = subprocess.run(health, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0


def test_cuda_is_refused_as_the_compose_file_says(semshared: str, tmp_path: Path) -> None:
    command = [semshared, "--backend=cuda", "--listen=127.0.0.1:0", "--metrics_listen=127.0.0.1:0"]
    command.append(f"--data_dir={tmp_path}")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "cuda" in done.stdout + done.stderr
