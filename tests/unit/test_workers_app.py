"""Celery's settings, line by line: messages are hints, the database is the queue of record."""

from __future__ import annotations

import json

import pytest
from celery import Celery

from db.lifecycle import JobKind
from workers.app import TASK_OF, create_app

KEY_PREFIX = "NODE_A"


@pytest.fixture(scope="module")
def app() -> Celery:
    return create_app("redis://:secret@127.0.0.1:1/0", key_prefix=KEY_PREFIX)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("task_serializer", "json"),
        ("accept_content", ["json"]),
        ("result_backend", None),
        ("task_ignore_result", True),
        ("task_acks_late", True),
        ("task_reject_on_worker_lost", False),
        ("task_acks_on_failure_or_timeout", True),
        ("task_track_started", False),
        ("task_create_missing_queues", False),
        ("worker_prefetch_multiplier", 1),
        ("worker_enable_remote_control", False),
        ("worker_send_task_events", False),
        ("worker_cancel_long_running_tasks_on_connection_loss", False),
        ("worker_pool_start_method", "spawn"),
        ("worker_hijack_root_logger", False),
        ("broker_connection_retry_on_startup", True),
        ("broker_connection_max_retries", None),
    ],
)
def test_the_worker_runs_with(app: Celery, setting: str, value: object) -> None:
    assert app.conf[setting] == value


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("visibility_timeout", 86400),
        ("socket_timeout", 5),
        ("socket_connect_timeout", 2),
        ("socket_keepalive", True),
        ("health_check_interval", 25),
        ("global_keyprefix", f"{KEY_PREFIX}:"),
        ("max_retries", 1),
        ("interval_start", 0),
        ("interval_step", 0.1),
        ("interval_max", 0.2),
    ],
)
def test_the_transport_runs_with(app: Celery, option: str, value: object) -> None:
    assert app.conf.broker_transport_options[option] == value


def test_there_is_a_queue_for_each_kind_of_job_and_no_other(app: Celery) -> None:
    assert {queue.name for queue in app.conf.task_queues} == {"score", "deliver", "train", "commit"}
    assert app.conf.task_default_queue in {"score", "deliver", "train", "commit"}


def test_task_names_are_constants_that_survive_a_moved_file() -> None:
    assert {kind.value: name for kind, name in TASK_OF.items()} == {
        "score": "dicom_node.score",
        "deliver": "dicom_node.deliver",
        "train": "dicom_node.train",
        "commit": "dicom_node.commit",
    }


@pytest.mark.parametrize("kind", JobKind)
def test_a_task_goes_to_the_queue_of_its_kind(app: Celery, kind: JobKind) -> None:
    assert app.amqp.router.route({}, TASK_OF[kind])["queue"].name == kind.value


def test_making_an_application_leaves_no_trace_for_others() -> None:
    one, other = create_app("redis://h", key_prefix="A"), create_app("redis://h", key_prefix="B")
    assert one.conf.broker_transport_options["global_keyprefix"] == "A:"
    assert other.conf.broker_transport_options["global_keyprefix"] == "B:"


def test_a_settings_dump_shows_no_password(app: Celery) -> None:
    assert "secret" not in json.dumps(app.conf.humanize())
