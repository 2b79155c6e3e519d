"""How a destination is written: AE@HOST:PORT."""

from __future__ import annotations

import subprocess
import sys

import pytest

from dicom_node.delivery.destination import Destination


@pytest.mark.parametrize(
    ("text", "ae_title", "host", "port"),
    [
        ("PACS@pacs.example.org:104", "PACS", "pacs.example.org", 104),
        ("MY PACS@10.0.0.7:11112", "MY PACS", "10.0.0.7", 11112),
        ("A@B@host:104", "A@B", "host", 104),
        ("A:B@host:104", "A:B", "host", 104),
        ("PACS@[2001:db8::7]:104", "PACS", "2001:db8::7", 104),
        ("16 LETTERS TITLE@host:1", "16 LETTERS TITLE", "host", 1),
        ("~@host:65535", "~", "host", 65535),
    ],
)
def test_a_destination_reads_back_as_it_was_written(text: str, ae_title: str, host: str, port: int) -> None:
    destination = Destination.parse(text)

    assert destination == Destination(ae_title, host, port)
    assert str(destination) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "PACS",
        "pacs.example.org:104",
        "PACS@pacs.example.org",
        "PACS@:104",
        "PACS@host:",
        "PACS@host:0",
        "PACS@host:65536",
        "PACS@host:1e3",
        "PACS@ho st:104",
        "@host:104",
        "   @host:104",
        "SEVENTEEN_LETTERS@host:104",
        "BACK\\SLASH@host:104",
        "LINE\nBREAK@host:104",
        "PÄCS@host:104",
        "PACS@2001:db8::7:104",
        "PACS@host:104 ",
    ],
)
def test_what_cannot_be_a_destination_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="for example"):
        Destination.parse(text)


@pytest.mark.parametrize("host", ["", "ho st", "host\n"])
def test_what_cannot_be_a_host_is_refused_also_where_it_is_not_written_as_one_text(host: str) -> None:
    with pytest.raises(ValueError, match="is not a host name"):
        Destination("PACS", host, 104)


def test_spaces_around_an_ae_title_are_not_significant() -> None:
    assert Destination(" PACS  ", "host", 104) == Destination("PACS", "host", 104)


def test_naming_a_destination_loads_no_dicom_library() -> None:
    program = (
        "import sys, dicom_node.delivery.destination\n"
        "print('pynetdicom' in sys.modules, 'pydicom' in sys.modules)"
    )

    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert shown.stdout.split() == ["False", "False"]
