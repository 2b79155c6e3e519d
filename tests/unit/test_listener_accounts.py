"""The file of users: what may stand in it, and that nobody comes in by a fault of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dicom_node.errors import SettingsError
from dicom_node.listener.accounts import SHORTEST_PASSCODE, Accounts

PASSCODE = "one that a machine made"


@pytest.fixture
def accounts(tmp_path: Path) -> Accounts:
    return Accounts(tmp_path / "keys" / "accounts.json")


@pytest.mark.parametrize("length", [SHORTEST_PASSCODE, 256])
def test_a_passcode_of_either_bound_is_taken_and_proves_its_user_alone(
    accounts: Accounts, length: int
) -> None:
    accounts.add("mammo", "x" * length)
    accounts.add("other", PASSCODE)

    assert accounts.verify(b"mammo", b"x" * length)
    assert not accounts.verify(b"mammo", b"x" * (length - 1))
    assert not accounts.verify(b"other", b"x" * length)
    assert not accounts.verify(b"nobody", b"x" * length)
    assert accounts.names() == ["mammo", "other"]


@pytest.mark.parametrize("length", [0, SHORTEST_PASSCODE - 1, 257])
def test_a_passcode_outside_the_bounds_is_refused_and_not_quoted(accounts: Accounts, length: int) -> None:
    with pytest.raises(SettingsError, match="12 to 256") as refusal:
        accounts.add("mammo", "y" * length)
    assert not length or "y" * length not in str(refusal.value)
    assert accounts.names() == []


@pytest.mark.parametrize("name", ["", "two words", "a" * 65, "a\n", "a/b", "ä"])
def test_what_is_no_user_name_is_refused(accounts: Accounts, name: str) -> None:
    with pytest.raises(SettingsError, match="not a user name"):
        accounts.add(name, PASSCODE)


def test_the_longest_user_name_is_taken(accounts: Accounts) -> None:
    accounts.add("A.b_@-9" + "a" * 57, PASSCODE)
    assert accounts.verify(b"A.b_@-9" + b"a" * 57, PASSCODE.encode())


def test_a_new_passcode_takes_the_place_of_the_old_one(accounts: Accounts) -> None:
    accounts.add("mammo", PASSCODE)
    accounts.add("mammo", PASSCODE + "2")
    assert not accounts.verify(b"mammo", PASSCODE.encode())
    assert accounts.verify(b"mammo", PASSCODE.encode() + b"2")


def test_of_two_users_the_removed_one_is_gone(accounts: Accounts) -> None:
    accounts.add("mammo", PASSCODE)
    accounts.add("other", PASSCODE)
    assert accounts.remove("mammo")
    assert not accounts.remove("mammo")
    assert not accounts.verify(b"mammo", PASSCODE.encode())
    assert accounts.verify(b"other", PASSCODE.encode())


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_file_that_others_may_use_lets_nobody_in(accounts: Accounts, tmp_path: Path, mode: int) -> None:
    accounts.add("mammo", PASSCODE)
    (tmp_path / "keys" / "accounts.json").chmod(mode)
    assert not accounts.verify(b"mammo", PASSCODE.encode())
    with pytest.raises(SettingsError, match="chmod 600"):
        accounts.names()


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"mammo": 1}', '{"mammo": {}}', json.dumps({"mammo": {"salt": "zz", "scrypt": "00"}})],
)
def test_a_damaged_file_lets_nobody_in_and_is_named(accounts: Accounts, tmp_path: Path, content: str) -> None:
    accounts.add("mammo", PASSCODE)
    (tmp_path / "keys" / "accounts.json").write_text(content)
    assert not accounts.verify(b"mammo", PASSCODE.encode())
    with pytest.raises(SettingsError, match="restore it, or remove it"):
        accounts.add("other", PASSCODE)
