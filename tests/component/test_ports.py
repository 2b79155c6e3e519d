"""A port that the node cannot have is told with what helps, whatever the kernel's reason."""

from __future__ import annotations

import errno
import socket
from pathlib import Path

import pytest

from dicom_node.cli.exit_codes import ExitCode
from dicom_node.errors import PortUnavailableError
from tests.command_line import command

NOT_OF_THIS_MACHINE = "203.0.113.7"  # kept for documents by RFC 5737


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (OSError(errno.EADDRINUSE, "Address already in use"), "end the program that has it"),
        (OSError(errno.EACCES, "Permission denied"), "docs/how-to/connect-a-scanner.md"),
        (OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address"), "correct the host"),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "correct the host"),
    ],
)
def test_a_port_that_the_node_cannot_have_is_told_with_what_helps(error: OSError, advice: str) -> None:
    said = str(PortUnavailableError("0.0.0.0", 104, error, choices="--port"))
    assert said.startswith(f"port 104 of 0.0.0.0 cannot be listened on ({error.strerror}); ")
    assert advice in said
    assert said.endswith("(--port)")


def test_an_address_of_another_machine_is_told_before_anything_is_made(tmp_path: Path) -> None:
    answer = command(
        "serve", "--data-dir", tmp_path / "data", environment={"DICOM_NODE_HOST": NOT_OF_THIS_MACHINE}
    )
    assert answer.status == ExitCode.UNAVAILABLE
    assert "this machine has no such address" in " ".join(answer.err.split())
    assert not (tmp_path / "data").exists()
