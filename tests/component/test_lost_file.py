"""A stored file that vanished from the disk is mended by a resend; nothing else about its study changes."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from db.handoff import Registration, register_instance
from db.tables import Instance, Job
from dicom_node.listener.registration import Registrar
from dicom_node.spool import Spool
from tests.steered_node import LISTENER, RULES, SteeredNode, mammogram

DATA_SET = b"data set of a mammogram"
PREFACE = b"Part 10 header"


@pytest.mark.parametrize("damage", ["removed", "cut short", "none"])
def test_the_same_bytes_again_take_the_place_of_a_file_that_is_gone(
    node: SteeredNode, tmp_path: Path, damage: str
) -> None:
    spool = Spool(tmp_path / "spool")
    registrar = Registrar(node.database, RULES, spool=spool, actor=LISTENER)

    def receive() -> tuple[str, Registration]:
        file = spool.write(DATA_SET, preface=PREFACE)
        digest = hashlib.sha256(DATA_SET).hexdigest()
        instance = replace(mammogram(), sha256=digest, size_bytes=len(DATA_SET), spool_name=file.name)
        return file.name, registrar.register(instance)

    first, registered = receive()
    assert registered is Registration.NEW
    if damage == "removed":
        spool.path_of(first).unlink()
    elif damage == "cut short":
        spool.path_of(first).write_bytes(PREFACE)
    second, registered = receive()

    (row,) = node.rows(Instance)
    whole = damage == "none"
    assert registered is (Registration.DUPLICATE if whole else Registration.RESTORED)
    assert row.spool_name == (first if whole else second)
    assert node.actions().count("instance.restored") == (0 if whole else 1)
    assert node.actions().count("instance.stored") == 1
    assert node.rows(Job) == []
    assert len(node.revisions()) == 1


def test_a_file_is_mended_also_beside_other_content_under_its_uid(node: SteeredNode) -> None:
    first = mammogram()
    node.receive(first, replace(first, sha256="0" * 64, spool_name="other"))

    with node.transaction() as tx:
        again = replace(first, spool_name="again")
        registered = register_instance(tx, again, RULES, is_whole=lambda _file: False)

    assert registered is Registration.RESTORED
    assert [(row.conflict, row.spool_name) for row in node.rows(Instance)] == [(0, "again"), (1, "other")]
