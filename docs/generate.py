"""Write what follows from the code: ``python docs/generate.py``, or ``--check`` it.

These are the reference pages and the README's map of the folders.
"""

from __future__ import annotations

import argparse
import sys

from architectures_page import networks
from bundle_page import bundle_form
from conformance_page import conformance
from events_page import events
from file_map import README, ROOT, modules, readme
from reference_pages import PAGES
from refusals_page import refusal_codes
from settings_page import settings

REFERENCE = ROOT / "docs" / "reference"
NOTE = (
    "<!-- Written by docs/generate.py from the code: change the code, then run `python docs/generate.py`. -->"
)


def main() -> int:
    """Write or check all pages; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit status 1 where a page is stale"
    )
    check = parser.parse_args().check
    pages = {
        **PAGES,
        "bundle.md": bundle_form,
        "conformance.md": conformance,
        "events.md": events,
        "networks.md": networks,
        "modules.md": modules,
        "refusal-codes.md": refusal_codes,
        "settings.md": settings,
    }
    texts = {REFERENCE / name: f"{NOTE}\n\n{page()}\n" for name, page in pages.items()}
    texts[README] = readme()
    stale = [path for path, text in texts.items() if not path.exists() or path.read_text() != text]
    if not check:
        for path in stale:
            path.write_text(texts[path])
    if stale:
        sys.stdout.write(f"{'stale' if check else 'written'}: {', '.join(path.name for path in stale)}\n")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
