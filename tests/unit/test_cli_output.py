"""What commands print: the words of others are shown as they are."""

from __future__ import annotations

import pytest

from dicom_node.cli import output


@pytest.mark.parametrize("console", ["console", "errors"])
def test_what_looks_like_markup_in_a_path_is_a_part_of_it(
    console: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = "/data/[b]old[/b]/[2026]/:smile:"
    getattr(output, console).print(f"3 objects written to {path}")
    captured = capsys.readouterr()
    assert (captured.out + captured.err).rstrip() == f"3 objects written to {path}"
