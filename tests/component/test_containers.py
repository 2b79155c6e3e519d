"""Images, compose file and service unit: as tidy as their checkers ask, and fit for the node they start."""

from __future__ import annotations

import os
import re
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pynetdicom import AE

from db import processes
from db.audit.keys import AuditKey
from db.audit.trail import AuditTrail
from db.lifecycle import JobKind
from db.session import Database
from dicom_node import settings
from dicom_node.cli.exit_codes import ExitCode
from dicom_node.settings import load
from tests.component.test_packaging import pins
from tests.free_ports import free_port
from tests.installed_node import ROOT, Environment, clean_environment, closure, make_environment, wheel
from workers import app

__all__ = ["wheel"]

DOCKER = ROOT / "docker"
COMPOSE_FILES = ("compose.yaml", "compose.gpu.yaml", "compose.tls.yaml", "compose.metrics.yaml")
NODE_SERVICES = {"listen", "dispatch", "deliver", "score", "train"}
BACKING_SERVICES = {"postgres", "redis"}
COMMANDS = (
    *("serve", "listen", "dispatch", "work", "metrics", "status", "doctor", "study list", "job list"),
    *("result list", "model list", "audit query", "audit verify", "audit export", "db check", "config show"),
)
DEADLINE_S = 60.0


def compose() -> dict[str, Any]:
    """The compose file with its anchors resolved."""
    loaded: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    return loaded


def services() -> dict[str, dict[str, Any]]:
    """Services of the compose file by name."""
    found: dict[str, dict[str, Any]] = compose()["services"]
    return found


def tool(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a checker that is installed beside Python."""
    command = [Path(sys.executable).with_name(name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What docker/make-secrets makes."""
    folder = tmp_path_factory.mktemp("made") / "secrets"
    subprocess.run([DOCKER / "make-secrets", folder], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def listener_image(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """What the listener image installs, and nothing more."""
    folder = tmp_path_factory.mktemp("listener") / "venv"
    return make_environment(folder, wheel, closure(listener_requirements()).values())


def listener_requirements() -> list[str]:
    """The listener image's requirements."""
    lines = (DOCKER / "listener-requirements.txt").read_text().splitlines()
    return [line for line in lines if line and line[0] != "#"]


# --- Dockerfile


def test_dockerfile_passes_its_linter() -> None:
    linted = tool("hadolint", DOCKER / "Dockerfile")
    assert linted.returncode == 0, linted.stdout


def test_base_image_is_pinned_by_digest_and_the_images_run_without_privileges() -> None:
    text = (DOCKER / "Dockerfile").read_text()
    stages = dict(re.findall(r"^FROM (\S+) AS (\S+)$", text, re.MULTILINE))
    foreign = [base for base in stages if base not in stages.values()]
    assert [base for base in foreign if not re.fullmatch(r"[\w.-]+:[\w.-]+@sha256:[0-9a-f]{64}", base)] == []
    node = text.partition(" AS node\n")[2]
    assert "USER 10001:10001" in node
    assert "USER" not in node.partition("USER 10001:10001")[2]
    assert "HEALTHCHECK" in node


def test_numpy_starts_no_threads_beyond_the_limit_of_a_service_that_computes_nothing() -> None:
    listener = (
        (DOCKER / "Dockerfile").read_text().partition("FROM node AS listener\n")[2].partition("FROM")[0]
    )
    assert "ENV OPENBLAS_NUM_THREADS=1\n" in listener
    assert services()["deliver"]["deploy"]["resources"]["limits"]["pids"] <= 64, "OpenBLAS starts up to 64"


def test_builder_is_sent_every_file_that_the_images_copy_and_no_secret() -> None:
    admitted = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")
    }
    copied = re.findall(
        r"^COPY (?!--from)(?:--\S+ )*(.+) \S+$", (DOCKER / "Dockerfile").read_text(), re.MULTILINE
    )
    sources = {source for line in copied for source in line.split()}
    assert sources == admitted
    assert {source for source in sources if not (ROOT / source).exists()} == set()
    assert "docker/secrets" not in admitted


# --- The listener image's packages


def test_listener_image_has_pinned_packages_without_torch() -> None:
    names = closure(listener_requirements()).keys()
    assert names <= pins().keys()
    assert names.isdisjoint({"torch", "monai", "highdicom", "pillow"})


def test_listener_image_asks_for_nothing_that_the_project_does_not() -> None:
    project = Requirement("dicom-node")
    declared = closure([str(project)]).keys()
    assert {canonicalize_name(Requirement(line).name) for line in listener_requirements()} <= declared


@pytest.mark.parametrize("command", COMMANDS)
def test_command_explains_itself_without_torch(
    listener_image: Environment, command: str, tmp_path: Path
) -> None:
    told = listener_image.run(*command.split(), "--help", cwd=tmp_path)
    assert (told.returncode, told.stderr) == (0, "")


def test_listener_receives_and_is_healthy_without_torch(listener_image: Environment, tmp_path: Path) -> None:
    port = free_port()
    where = ["--data-dir", str(tmp_path / "data")]
    with running(listener_image, tmp_path, "listen", *where, "--port", str(port)) as process:
        wait_for("listener.ready", tmp_path / "log", process)
        assert echo(port) == 0x0000
        wait_until_healthy(listener_image, tmp_path, process)  # its first sign follows the port
    assert process.returncode == 0
    ended = healthcheck(listener_image, tmp_path)
    assert ended.returncode == 1
    assert "no process on this host" in ended.stderr


def test_metrics_are_told_without_torch_by_what_their_compose_file_says(
    listener_image: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overlay = yaml.safe_load((DOCKER / "compose.metrics.yaml").read_text())["services"]["metrics"]
    assert overlay["extends"] == {"file": "compose.yaml", "service": "dispatch"}
    assert [port.rpartition(":")[2] for port in overlay["ports"]] == ["9108"]
    assert re.match(r"\$\{\w+:-127\.0\.0\.1:", overlay["ports"][0])
    for name, value in overlay["environment"].items():
        monkeypatch.setenv(name, value)
    where = ["--data-dir", str(tmp_path / "data")]
    told = load(config_file=None, flags={"data_dir": tmp_path}).metrics
    assert (told.host, told.port) == ("0.0.0.0", 9108)
    assert listener_image.run("db", "upgrade", *where, cwd=tmp_path).returncode == 0
    (tmp_path / "data" / "node.toml").write_text(f"[metrics]\nport = {free_port()}\n")
    with running(listener_image, tmp_path, *overlay["command"], *where) as process:
        wait_until_healthy(listener_image, tmp_path, process)
    assert process.returncode == 0


@pytest.mark.parametrize("command", [["dispatch"], ["work", "--queues", "deliver"]])
def test_dispatcher_and_delivery_are_healthy_without_torch(
    listener_image: Environment, command: list[str], tmp_path: Path
) -> None:
    with running(listener_image, tmp_path, *command, "--data-dir", str(tmp_path / "data")) as process:
        wait_until_healthy(listener_image, tmp_path, process)
    assert process.returncode == 0


@contextmanager
def running(environment: Environment, folder: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a long-lived command and stop it as a container's end does."""
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [environment.command, *arguments],
            cwd=folder,
            env=clean_environment(),
            stdout=log,
            stderr=log,
        )
    with process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(DEADLINE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


def wait_for(event: str, log: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait until a process logged an event."""
    deadline = time.monotonic() + DEADLINE_S
    while event not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)  # another process's log offers no event to wait on


def wait_until_healthy(environment: Environment, folder: Path, process: subprocess.Popen[bytes]) -> None:
    """Ask as the container's engine does until the process has signed."""
    deadline = time.monotonic() + DEADLINE_S
    while healthcheck(environment, folder).returncode != 0:
        assert process.poll() is None, (folder / "log").read_text()
        assert time.monotonic() < deadline, (folder / "log").read_text()


def echo(port: int) -> int:
    """The status of one C-ECHO."""
    ae = AE()
    ae.add_requested_context("1.2.840.10008.1.1")
    association = ae.associate("127.0.0.1", port)
    assert association.is_established
    answer = association.send_c_echo()
    association.release()
    return int(answer.Status)


def healthcheck(environment: Environment, folder: Path) -> subprocess.CompletedProcess[str]:
    """Ask as the container's engine would."""
    path = f"{environment.folder / 'bin'}:/usr/bin:/bin"
    return subprocess.run(
        [environment.python, DOCKER / "healthcheck.py"],
        env={**clean_environment(), "PATH": path, "DICOM_NODE_DATA_DIR": str(folder / "data")},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_listener_of_two_processes_is_unhealthy_while_one_is_missing(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    here = Environment(Path(sys.prefix))
    assert here.run("db", "upgrade", "--data-dir", str(data_dir), cwd=tmp_path).returncode == 0
    trail = AuditTrail(AuditKey.load(data_dir / "keys" / "audit.key"))
    (data_dir / "node.toml").write_text("[listener]\nprocesses = 2\n")
    with (
        closing(Database(f"sqlite:///{data_dir / 'node.db'}", trail)) as database,
        subprocess.Popen(["sleep", "infinity"]) as other,
    ):

        def checked() -> subprocess.CompletedProcess[str]:
            # Just before each look, which takes seconds of the half minute that a sign is good for.
            with database.transaction("test") as tx:
                for pid in (os.getpid(), other.pid):
                    processes.sign_of_life(tx, f"listen@{socket.gethostname()}:{pid}", "listen")
            return healthcheck(here, tmp_path)

        try:
            whole = checked()
        finally:
            other.kill()
            other.wait()
        short = checked()
    assert (whole.returncode, whole.stderr) == (0, "")
    assert (short.returncode, short.stderr) == (1, "1 of 2 listener processes run\n")


# --- Compose


@pytest.mark.parametrize("name", COMPOSE_FILES)
def test_compose_file_obeys_the_compose_specification(name: str) -> None:
    checked = tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", DOCKER / name)
    assert checked.returncode == 0, checked.stdout


def test_check_against_the_specification_finds_a_misspelt_key(tmp_path: Path) -> None:
    broken = tmp_path / "compose.yaml"
    broken.write_text(
        (DOCKER / "compose.yaml").read_text().replace("    command: [listen]", "    comand: [listen]")
    )
    assert tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", broken).returncode == 1


def test_compose_runs_the_node_its_databases_and_a_pacs() -> None:
    assert services().keys() == NODE_SERVICES | BACKING_SERVICES | {"orthanc"}


@pytest.mark.parametrize("name", sorted(NODE_SERVICES | BACKING_SERVICES | {"orthanc"}))
def test_service_is_confined(name: str) -> None:
    service = services()[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == "unless-stopped"
    assert service["deploy"]["resources"]["limits"].keys() >= {"cpus", "memory", "pids"}
    assert service["read_only"] is (name != "orthanc")
    assert "privileged" not in service
    assert "healthcheck" in service or name in NODE_SERVICES  # the node's images bring theirs


def test_backing_services_are_reached_from_inside_alone() -> None:
    networks = compose()["networks"]
    assert networks["inside"]["internal"] is True
    for name in BACKING_SERVICES:
        service = services()[name]
        assert service["networks"] == ["inside"]
        assert "ports" not in service


@pytest.mark.parametrize("name", sorted(BACKING_SERVICES | {"orthanc"}))
def test_foreign_image_runs_as_the_user_that_it_was_made_for(name: str) -> None:
    # Root without capabilities may write nothing that belongs to that user, and would not even start.
    assert services()[name]["user"] == "999:999"


def test_pacs_keeps_its_studies_in_a_folder_that_its_user_owns() -> None:
    volumes = services()["orthanc"]["volumes"]
    assert "orthanc:/var/lib/orthanc" in volumes, "a new volume takes its owner from the image's folder"


def test_database_is_healthy_only_when_others_reach_it() -> None:
    assert "--host=127.0.0.1" in services()["postgres"]["healthcheck"]["test"]


def test_published_ports_are_this_hosts_own_unless_asked_otherwise() -> None:
    published = [port for service in services().values() for port in service.get("ports", ())]
    assert published
    assert [port for port in published if not re.match(r"127\.0\.0\.1:|\$\{\w+:-127\.0\.0\.1:", port)] == []


def test_foreign_images_are_pinned() -> None:
    for name in (*BACKING_SERVICES, "orthanc"):
        assert re.search(r":\d+(\.\d+)+(-\w+)?(@sha256:[0-9a-f]{64})?$", services()[name]["image"]), name


def test_no_secret_stands_in_the_environment(secrets: Path) -> None:
    variables = [str(v) for service in services().values() for v in service.get("environment", {}).items()]
    assert [
        v for v in variables if re.search(r"password|secret|_url", v, re.I) and "/run/secrets/" not in v
    ] == []
    declared = {Path(secret["file"]).name for secret in compose()["secrets"].values()}
    assert declared == {path.name for path in secrets.iterdir()}


def test_node_understands_the_settings_that_compose_gives_it(secrets: Path, tmp_path: Path) -> None:
    environments = [services()[name]["environment"] for name in NODE_SERVICES]
    given = {**environments[0], "DICOM_NODE_CONFIG": str(secrets / "node.toml")}
    checked = subprocess.run(
        [sys.executable, "-m", "dicom_node", "config", "check", "--data-dir", str(tmp_path)],
        env={**clean_environment(), **given},
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr
    assert all(environment == environments[0] for environment in environments)


def test_listener_takes_tls_with_what_its_compose_file_gives_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overlay = yaml.safe_load((DOCKER / "compose.tls.yaml").read_text())
    listen = overlay["services"]["listen"]
    for name, value in listen["environment"].items():
        monkeypatch.setenv(name, value)
    tls = load(config_file=None, flags={"data_dir": tmp_path}).listener.tls
    assert tls.files is not None
    used = {str(file) for file in (tls.files.certificate, tls.files.private_key, tls.files.authority)}
    assert used == {f"/run/secrets/{name}" for name in overlay["secrets"]}
    assert set(listen["secrets"]) == {*overlay["secrets"], *services()["listen"]["secrets"]}
    assert [port.rpartition(":")[2] for port in listen["ports"]] == [str(tls.port)]
    assert f"EXPOSE 11112 {tls.port}\n" in (DOCKER / "Dockerfile").read_text()


def test_every_node_service_runs_a_command_of_its_image() -> None:
    assert {name: service["command"] for name, service in services().items() if name in NODE_SERVICES} == {
        "listen": ["listen"],
        "dispatch": ["dispatch"],
        "deliver": ["work", "--queues", "deliver"],
        "score": ["work", "--queues", "score"],
        "train": ["work", "--queues", "train"],
    }
    images = {name: services()[name]["build"]["target"] for name in NODE_SERVICES}
    assert {name for name, target in images.items() if target == "worker"} == {"score", "train"}


# --- Secrets


def test_secrets_are_closed_to_other_users_of_the_host(secrets: Path) -> None:
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o700


def test_secrets_lead_the_node_to_the_services_of_the_compose_file(secrets: Path, tmp_path: Path) -> None:
    loaded = settings.load(config_file=secrets / "node.toml", flags={"data_dir": tmp_path})
    password = (secrets / "postgres-password").read_text()
    assert (
        loaded.effective_database_url
        == f"postgresql+psycopg://dicom_node:{password}@postgres:5432/dicom_node"
    )
    assert loaded.broker_url is not None
    assert "@redis:6379/0" in loaded.broker_url.get_secret_value()
    assert len(password) == 48


def test_secrets_of_a_running_node_are_never_overwritten(secrets: Path) -> None:
    before = {path.name: path.read_bytes() for path in secrets.iterdir()}
    subprocess.run([DOCKER / "make-secrets", secrets], check=True, capture_output=True)
    assert {path.name: path.read_bytes() for path in secrets.iterdir()} == before


# --- Redis with the rights that the node gets


@pytest.fixture
def guarded_redis(secrets: Path, tmp_path: Path) -> Iterator[tuple[int, str]]:
    """A Redis server with the compose file's options and access rules: port and the node's password.

    One more user may read what was refused to whom.
    """
    rules = (secrets / "redis-users.acl").read_text()
    (tmp_path / "users.acl").write_text(f"{rules}user auditor on nopass -@all +acl|log\n")
    command = list(services()["redis"]["command"])
    command[command.index("/run/secrets/redis-users.acl")] = str(tmp_path / "users.acl")
    port = free_port()
    password = re.search(r"dicom_node on >(\w+)", rules)
    assert password
    server = subprocess.Popen(
        [*command, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(tmp_path)],
        stdout=subprocess.DEVNULL,
    )
    health = redis.Redis(port=port, username="health", password="any")
    try:
        deadline = time.monotonic() + DEADLINE_S
        while not is_up(health):
            assert server.poll() is None, "Redis refuses its options or its access rules"
            assert time.monotonic() < deadline
        yield port, password[1]
    finally:
        health.close()
        server.terminate()
        server.wait(DEADLINE_S)


def is_up(client: redis.Redis) -> bool:
    """Whether a server answers."""
    try:
        return bool(client.ping())
    except redis.exceptions.ConnectionError:
        return False


@pytest.mark.redis
def test_redis_lets_the_node_ring_and_answer(
    guarded_redis: tuple[int, str], listener_image: Environment, tmp_path: Path
) -> None:
    port, password = guarded_redis
    url = f"redis://dicom_node:{password}@127.0.0.1:{port}/0"
    (tmp_path / "node.toml").write_text(f'broker_url = "{url}"\n')
    where = ["--data-dir", str(tmp_path / "data"), "--config", str(tmp_path / "node.toml")]
    celery = app.create_app(url, key_prefix="DICOM_NODE")
    with (
        closing(redis.Redis.from_url(url)) as client,
        running(listener_image, tmp_path, "work", "--queues", "deliver", *where) as process,
    ):
        app.ring(celery, JobKind.DELIVER, "no-such-job")
        deadline = time.monotonic() + DEADLINE_S
        while client.llen("DICOM_NODE:deliver") or client.zrange("DICOM_NODE:unacked_index", 0, -1):
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
    celery.close()
    assert process.returncode == 0
    with closing(redis.Redis(port=port, username="auditor", password="any")) as auditor:
        assert auditor.acl_log() == []


@pytest.mark.redis
@pytest.mark.parametrize(
    "command",
    [
        ["FLUSHALL"],
        ["CONFIG", "GET", "*"],
        ["KEYS", "*"],
        ["ACL", "LIST"],
        ["SHUTDOWN"],
        ["GET", "OTHER:key"],
    ],
)
def test_redis_refuses_the_node_what_it_does_not_need(
    guarded_redis: tuple[int, str], command: list[str]
) -> None:
    port, password = guarded_redis
    with (
        closing(redis.Redis(port=port, username="dicom_node", password=password)) as client,
        pytest.raises(redis.exceptions.NoPermissionError),
    ):
        client.execute_command(*command)


@pytest.mark.redis
def test_redis_tells_strangers_nothing_and_the_health_check_that_it_lives(
    guarded_redis: tuple[int, str],
) -> None:
    port, _ = guarded_redis
    with (
        closing(redis.Redis(port=port)) as stranger,
        pytest.raises(redis.exceptions.AuthenticationError),
    ):
        stranger.ping()
    command = services()["redis"]["healthcheck"]["test"][1].replace("redis-cli", f"redis-cli -p {port}")
    assert subprocess.run(command, shell=True, check=False).returncode == 0
    with (
        closing(redis.Redis(port=port, username="health", password="any")) as health,
        pytest.raises(redis.exceptions.NoPermissionError),
    ):
        health.get("DICOM_NODE:deliver")


# --- systemd


def test_unit_keeps_the_service_to_itself() -> None:
    unit = DOCKER / "systemd/dicom-node.service"
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", str(unit)]
    rated = subprocess.run(command, capture_output=True, text=True, check=False)
    assert rated.returncode == 0, rated.stdout


def test_unit_starts_again_what_ended_in_good_order_too() -> None:
    text = (DOCKER / "systemd/dicom-node.service").read_text()
    assert re.findall(r"^Restart=(.*)$", text, re.MULTILINE) == ["always"], "on-failure leaves out status 0"


def test_unit_does_not_start_again_what_will_fail_again() -> None:
    text = (DOCKER / "systemd/dicom-node.service").read_text()
    listed = re.search(r"^RestartPreventExitStatus=(.*)$", text, re.MULTILINE)
    assert listed is not None
    lasting = {ExitCode.USAGE, ExitCode.SETTINGS, ExitCode.INSTALLATION}
    assert {int(status) for status in listed[1].split()} == {int(code) for code in lasting}
