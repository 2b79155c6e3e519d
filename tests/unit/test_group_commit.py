"""Commits of many threads: together where they wait together, each with its own outcome."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from db.errors import DatabaseUnavailableError
from dicom_node.listener.group_commit import MOST_TOGETHER, GroupCommit


class Commits:
    """Commits numbers; the first commit lasts until it is told to end."""

    def __init__(self, *, most_together: int = MOST_TOGETHER) -> None:
        self.batches: list[list[int]] = []
        self.has_begun, self.may_end = threading.Event(), threading.Event()
        self.fails: dict[int, Exception] = {}
        self.group = GroupCommit(self.commit, most_together=most_together)

    def commit(self, items: Sequence[int]) -> list[str]:
        """Commit a batch, unless one of its items fails it."""
        self.batches.append(list(items))
        self.has_begun.set()
        assert self.may_end.wait(60)
        for item in items:
            if item in self.fails:
                raise self.fails[item]
        return [f"committed {item}" for item in items]

    def submit_while_the_first_commits(self, count: int) -> list[Future[str]]:
        """Submit item 0, and the others while its commit runs."""
        with ThreadPoolExecutor(count) as pool:
            futures = [pool.submit(self.group.submit, 0)]
            assert self.has_begun.wait(60)
            futures += [pool.submit(self.group.submit, item) for item in range(1, count)]
            while len(self.group._queue) < count - 1:
                threading.Event().wait(0.001)
            self.may_end.set()
        return futures


def test_a_lone_item_is_committed_at_once_and_alone() -> None:
    commits = Commits()
    commits.may_end.set()
    assert [commits.group.submit(item) for item in (1, 2)] == ["committed 1", "committed 2"]
    assert commits.batches == [[1], [2]]


def test_who_comes_during_a_commit_is_committed_by_the_next_one_together() -> None:
    commits = Commits()
    futures = commits.submit_while_the_first_commits(6)
    assert [future.result() for future in futures] == [f"committed {item}" for item in range(6)]
    assert [sorted(batch) for batch in commits.batches] == [[0], [1, 2, 3, 4, 5]]


def test_no_commit_is_larger_than_its_bound_and_nobody_is_left_out() -> None:
    commits = Commits(most_together=2)
    futures = commits.submit_while_the_first_commits(6)
    assert [future.result() for future in futures] == [f"committed {item}" for item in range(6)]
    assert [len(batch) for batch in commits.batches] == [1, 2, 2, 1]


def test_an_item_that_fails_does_not_fail_those_beside_it() -> None:
    commits = Commits()
    commits.fails[3] = ValueError("three")
    futures = commits.submit_while_the_first_commits(6)
    with pytest.raises(ValueError, match="three"):
        futures[3].result()
    assert [futures[item].result() for item in (0, 1, 2, 4, 5)] == [
        f"committed {item}" for item in (0, 1, 2, 4, 5)
    ]
    assert sorted(map(sorted, commits.batches[2:])) == [[1], [2], [3], [4], [5]]


def test_a_database_that_is_away_is_told_to_all_and_not_asked_again_for_each() -> None:
    commits = Commits()
    commits.fails[3] = DatabaseUnavailableError("away")
    futures = commits.submit_while_the_first_commits(6)
    assert futures[0].result() == "committed 0"
    for future in futures[1:]:
        with pytest.raises(DatabaseUnavailableError):
            future.result()
    assert len(commits.batches) == 2


def test_a_leader_that_is_cut_off_leaves_nobody_believing_in_a_row() -> None:
    commits = Commits()
    commits.fails[0] = SystemExit()  # type: ignore[assignment]  # no Exception: ends the leader's thread
    futures = commits.submit_while_the_first_commits(3)
    with pytest.raises(SystemExit):
        futures[0].result()
    assert [future.result() for future in futures[1:]] == ["committed 1", "committed 2"]


def test_those_in_the_commit_of_a_leader_that_is_cut_off_do_not_believe_in_theirs_either() -> None:
    commits = Commits()
    commits.fails[3] = SystemExit()  # type: ignore[assignment]  # as above
    futures = commits.submit_while_the_first_commits(4)
    assert futures[0].result() == "committed 0"
    errors = [type(future.exception()) for future in futures[1:]]
    assert sorted(errors, key=str) == [SystemExit, DatabaseUnavailableError, DatabaseUnavailableError]


def test_after_a_failure_the_next_item_is_committed() -> None:
    commits = Commits()
    commits.may_end.set()
    commits.fails[1] = ValueError("one")
    with pytest.raises(ValueError, match="one"):
        commits.group.submit(1)
    assert commits.group.submit(2) == "committed 2"
