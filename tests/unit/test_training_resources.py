"""How much memory a run can get, by what the kernel tells."""

from __future__ import annotations

from pathlib import Path

import pytest

from training import resources
from training.resources import available_memory

MIB = 1 << 20


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 8 GiB available and a control group of 1 GiB, most of which holds files."""
    group = tmp_path / "cgroup"
    group.mkdir()
    (tmp_path / "meminfo").write_text(
        f"MemTotal: {16 * MIB} kB\nMemAvailable: {8 * MIB} kB\nHugePages_Total: 0\n"
    )
    (group / "memory.max").write_text(f"{1024 * MIB}\n")
    (group / "memory.current").write_text(f"{1000 * MIB}\n")
    (group / "memory.stat").write_text(
        f"anon {100 * MIB}\nfile {900 * MIB}\nshmem 0\ninactive_file {700 * MIB}\nactive_file {200 * MIB}\n"
    )
    monkeypatch.setattr(resources, "_MEMORY", tmp_path / "meminfo")
    monkeypatch.setattr(resources, "_CGROUP", group)
    return group


def test_files_that_the_kernel_keeps_in_a_control_group_take_no_memory_from_a_run(kernel: Path) -> None:
    assert available_memory() == 924 * MIB


def test_a_control_group_without_a_limit_leaves_what_the_machine_has(kernel: Path) -> None:
    (kernel / "memory.max").write_text("max\n")
    assert available_memory() == 8192 * MIB


def test_a_control_group_never_gives_more_than_the_machine_has(kernel: Path) -> None:
    (kernel / "memory.max").write_text(f"{64 * 1024 * MIB}\n")
    assert available_memory() == 8192 * MIB


def test_a_machine_without_control_groups_tells_its_own(kernel: Path) -> None:
    (kernel / "memory.max").unlink()
    assert available_memory() == 8192 * MIB
