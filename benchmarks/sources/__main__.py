"""``python -m benchmarks.sources s3 --data FOLDER --out FOLDER``: one source under both protocols."""

from __future__ import annotations

import argparse
import importlib
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.sources.pages import page_of
from benchmarks.sources.runs import run_source, training_seconds
from benchmarks.sources.variants import Places, Sizes, Source

SOURCES = ("s0", "s1", "s2", "s3", "s4")


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, run the source and write its page."""
    given = _parser().parse_args(arguments)
    source: Source = importlib.import_module(f"benchmarks.sources.{given.source}").SOURCE
    if unknown := set(given.only) - {variant.name for variant in source.variants}:
        sys.exit(f"{source.name} has no network {', '.join(sorted(unknown))}.")
    if given.only:
        source = replace(source, variants=tuple(v for v in source.variants if v.name in given.only))
    digests = dict(pair.split("=", 1) for pair in given.sha256)
    files = dict(pair.split("=", 1) for pair in given.weights)
    if files.keys() != digests.keys():
        sys.exit("Give --sha256 NAME=DIGEST for each --weights NAME=FILE.")
    sizes = Sizes(
        side=given.side,
        epochs=given.epochs,
        folds=given.folds,
        run_folds=min(given.run_folds or given.folds, given.folds),
        batch_size=given.batch_size,
        threads=given.threads,
        seed=given.seed,
        device=given.device,
    )
    places = Places(
        data=given.data,
        work=given.work,
        weights={name: (Path(file), digests[name]) for name, file in files.items()},
    )
    runs = run_source(source, sizes, places, tell=lambda line: print(line, flush=True))
    words = sys.argv[1:] if arguments is None else list(arguments)
    command = shlex.join(["python", "-m", "benchmarks.sources", *_without_places(words)])
    page = page_of(
        source,
        runs,
        sizes,
        places,
        command=command,
        seconds=training_seconds(source, sizes, places),
    )
    given.out.mkdir(parents=True, exist_ok=True)
    target = given.out / f"{source.name}.md"
    target.write_text(page, encoding="utf-8")
    print(target)


def _without_places(words: Sequence[str]) -> list[str]:
    """Return the command with folders of this machine replaced by what they hold."""
    shown = {"--data": "DATA", "--work": "WORK"}
    return [shown.get(before, word) for before, word in zip(["", *words], words, strict=False)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sources", description=__doc__)
    parser.add_argument("source", choices=SOURCES)
    parser.add_argument("--data", type=Path, required=True, help="folder with mini-mias and idc-patches")
    parser.add_argument("--out", type=Path, required=True, help="folder of the page")
    parser.add_argument("--work", type=Path, required=True, help="folder of the runs; gone on with")
    parser.add_argument("--only", action="append", default=[], metavar="NETWORK", help="repeatable; all")
    parser.add_argument("--side", type=int, default=64, help="rows and columns of the network's grid")
    parser.add_argument("--epochs", type=int, default=10, help="most epochs")
    parser.add_argument("--folds", type=int, default=5, help="folds of the split")
    parser.add_argument("--run-folds", type=int, help="how many of them are run; all")
    parser.add_argument("--batch-size", type=int, default=32, help="images in a step")
    parser.add_argument("--threads", type=int, default=1, help="torch's threads")
    parser.add_argument("--seed", type=int, default=20260101, help="of everything random")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda", "auto"))
    parser.add_argument("--weights", action="append", default=[], metavar="NAME=FILE")
    parser.add_argument("--sha256", action="append", default=[], metavar="NAME=DIGEST")
    return parser


if __name__ == "__main__":
    main()
