"""The Celery application: messages are doorbells that carry a job id and nothing else.

Built by a function, never at import; no module names are given to Celery as strings.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit, urlunsplit

from celery import Celery
from kombu import Queue

from db.lifecycle import JobKind

TASK_OF = {kind: f"dicom_node.{kind.value}" for kind in JobKind}
"""Worker task names, fixed so that a moved file does not orphan queued messages."""

# Longer than any job: Redis would hand a message to a second worker otherwise. The lease decides anyway.
VISIBILITY_TIMEOUT_S = 86400


def settings_for(key_prefix: str) -> dict[str, Any]:
    """Return the Celery settings; each is one line of the reliability requirements, and one test."""
    return {
        "task_serializer": "json",
        "accept_content": ["json"],
        "result_backend": None,
        "task_ignore_result": True,
        "task_acks_late": True,
        "task_reject_on_worker_lost": False,  # trying again is the database's business
        "task_acks_on_failure_or_timeout": True,
        "task_track_started": False,
        "task_create_missing_queues": False,
        "task_default_queue": JobKind.SCORE.value,
        "task_queues": [Queue(kind.value) for kind in JobKind],
        "task_routes": {TASK_OF[kind]: {"queue": kind.value} for kind in JobKind},
        "worker_prefetch_multiplier": 1,
        "worker_enable_remote_control": False,  # anybody on the broker could stop every worker
        "worker_send_task_events": False,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_pool_start_method": "spawn",
        "worker_hijack_root_logger": False,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_transport_options": {
            "visibility_timeout": VISIBILITY_TIMEOUT_S,
            "socket_timeout": 5,
            "socket_connect_timeout": 2,
            "socket_keepalive": True,
            "health_check_interval": 25,
            "global_keyprefix": f"{key_prefix}:",  # two nodes on one Redis must not see each other's messages
            "max_retries": 1,
            "interval_start": 0,
            "interval_step": 0.1,
            "interval_max": 0.2,
        },
    }


def create_app(broker_url: str, *, key_prefix: str) -> Celery:
    """Build the application.

    Parameters
    ----------
    broker_url : str
        ``redis://...``, or ``rediss://...`` for TLS, with the server's certificate verified.
    key_prefix : str
        The node's AE title: what separates nodes that share a Redis.
    """
    app = Celery("dicom-node", broker=_verifying(broker_url), set_as_current=False)
    app.conf.update(settings_for(key_prefix))
    return app


def _verifying(broker_url: str) -> str:
    """Return an address over which a server must prove who it is: by itself kombu takes any certificate."""
    parts = urlsplit(broker_url)
    if parts.scheme != "rediss" or "ssl_cert_reqs" in parse_qs(parts.query):
        return broker_url
    query = "&".join(filter(None, (parts.query, "ssl_cert_reqs=required")))
    return urlunsplit(parts._replace(query=query))


def ring(app: Celery, kind: JobKind, job_id: str) -> None:
    """Publish a doorbell; any failure is the caller's to log, the sweep rings again."""
    app.send_task(TASK_OF[kind], args=[job_id], argsrepr="job", kwargsrepr="", retry=False)
