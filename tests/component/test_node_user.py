"""Whose the node is: its user is told what helps where it is refused; root leaves another's node alone."""

from __future__ import annotations

import os
import platform
import pwd
import shlex
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from db.audit.keys import AuditKey
from db.errors import AuditError
from dicom_node import installation
from dicom_node.cli.exit_codes import ExitCode
from dicom_node.errors import SettingsError
from dicom_node.settings import load
from tests.command_line import command
from tests.simulators.certificates import Authority

NOBODY = pwd.getpwnam("nobody")


def words(text: str) -> str:
    return " ".join(text.split())


@contextmanager
def without_privileges() -> Iterator[None]:
    """What follows may do no more than any user."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY.pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)


def test_settings_that_are_closed_to_the_user_are_told_as_such(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text('ae_title = "NODE"\n')
    assert load(config_file=file, flags={"data_dir": tmp_path}).ae_title == "NODE"
    file.chmod(0)
    with without_privileges(), pytest.raises(SettingsError, match="closed to this user"):
        load(config_file=file, flags={"data_dir": "/"})


def test_keys_that_are_closed_to_the_user_are_told_as_such(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    AuditKey.load_or_create(keys / "audit.key")
    keys.chmod(0)
    with without_privileges(), pytest.raises(AuditError, match="closed to this user"):
        AuditKey.load_or_create(keys / "audit.key")


def test_a_key_that_cannot_be_made_is_told_with_the_setting_of_its_folder() -> None:
    with pytest.raises(AuditError, match=r"cannot be written \(.*audit\.key_dir"):
        AuditKey.load_or_create(Path("/proc/keys-of-a-node/audit.key"))


def test_a_private_key_that_is_closed_to_the_user_is_told_as_such() -> None:
    # Not below pytest's own folder, which is closed to all but who runs the tests.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        files = Authority(Path(folder)).issue("node")
        assert files.server_context()
        files.private_key.chmod(0)
        with without_privileges(), pytest.raises(SettingsError, match="closed to this user"):
            files.server_context()


@pytest.mark.parametrize(
    "arguments",
    [
        ("status",),
        ("doctor",),
        ("audit", "rotate-key"),
        ("account", "add", "mammo1"),
        ("db", "upgrade"),
    ],
    ids=" ".join,
)
def test_root_makes_nothing_in_the_data_directory_of_another_user(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root gives files away")
    data_dir = tmp_path / "data"
    where = ("--data-dir", data_dir)
    assert command("db", "upgrade", *where).status == 0
    for path in (data_dir, *data_dir.rglob("*")):
        os.chown(path, NOBODY.pw_uid, NOBODY.pw_gid)
    before = {path: path.stat().st_mtime_ns for path in data_dir.rglob("*")}

    answer = command(*arguments, *where)

    assert answer.status == ExitCode.SETTINGS
    assert f"runuser -u {NOBODY.pw_name} -- " in words(answer.err)
    assert {path: path.stat().st_mtime_ns for path in data_dir.rglob("*")} == before


def test_the_trail_names_who_logged_in_although_the_nodes_user_runs_the_command(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    assert command("db", "upgrade", "--data-dir", data_dir).status == 0
    # As pam_loginuid does at a login; it stays whoever sudo or runuser makes of that person.
    login = f"echo {NOBODY.pw_uid} > /proc/self/loginuid"
    if subprocess.run(["sh", "-c", login], capture_output=True, check=False).returncode != 0:
        pytest.skip("only root tells who logged in, and only where nobody did yet")
    where = ["--data-dir", str(data_dir)]
    asked = shlex.join([*installation.console_script(), "audit", "query", *where])
    environment = {**os.environ, "LOGNAME": "somebody-else", "USER": "somebody-else"}
    subprocess.run(["sh", "-c", f"{login}; {asked}"], env=environment, capture_output=True, check=True)

    (told,) = command("audit", "query", "--action", "audit.queried", "--json", *where).json
    assert told["actor"] == f"{NOBODY.pw_name}@{platform.node()}"
