"""Ask a vulnerability service about every pinned package, and say plainly where none could be asked.

Run by ``make audit-dependencies``. pip-audit alone ends with "No known vulnerabilities found" also where its
service knew none of the packages, as a mirror without that service does; here that is no success.

Exit status: 0, every package was looked up and none is vulnerable; 1, some are; 2, not every package could be
looked up, so nothing is known about the rest.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

CLEAN, VULNERABLE, NOT_AUDITED = 0, 1, 2
_MOST_NAMED = 10


def verdict(report: dict[str, Any] | None) -> tuple[int, str]:
    """Judge a report of pip-audit.

    Parameters
    ----------
    report : dict or None
        What ``pip-audit --format json`` printed; None where it printed nothing.

    Returns
    -------
    tuple of int and str
        Exit status, and what to tell.
    """
    packages = [] if report is None else report.get("dependencies", [])
    skipped = [each["name"] for each in packages if "skip_reason" in each]
    audited = len(packages) - len(skipped)
    found = [
        f"{each['name']} {each['version']}: {one['id']}, fixed in {', '.join(one['fix_versions']) or 'none'}"
        for each in packages
        for one in each.get("vulns", [])
    ]
    if found:
        return VULNERABLE, "\n".join([f"{len(found)} known vulnerabilities", *found])
    if not audited:
        return NOT_AUDITED, (
            "NOT AUDITED: no vulnerability service could be reached from here, so nothing is known about any "
            "package. Run 'make audit-dependencies' where the Python Package Index can be reached."
        )
    if skipped:
        named = ", ".join(skipped[:_MOST_NAMED])
        return NOT_AUDITED, (
            f"{audited} packages have no known vulnerability; {len(skipped)} were NOT AUDITED: {named}"
        )
    return CLEAN, f"{audited} packages, no known vulnerability"


def audited(pins: Path) -> dict[str, Any] | None:
    """Run pip-audit on a file of pinned packages."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip_audit", "--requirement", str(pins), "--no-deps", "--disable-pip"),
            *("--format", "json", "--progress-spinner", "off", "--desc", "off"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        report: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        sys.stderr.write(done.stderr)
        return None
    return report


if __name__ == "__main__":
    status, words = verdict(audited(Path(sys.argv[1])))
    sys.stdout.write(f"{words}\n")
    sys.exit(status)
