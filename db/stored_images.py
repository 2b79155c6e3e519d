"""Which received objects of a modality lie in the spool: what training reads of a node."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.driver_errors import translated_errors
from db.engine import open_engine
from db.tables import Instance


def spooled_files(url: str, modality: str) -> list[tuple[str, str]]:
    """Return SOP Instance UID and file name in the spool of every accepted object, sorted by UID.

    Parameters
    ----------
    url : str
        The node's database, as :class:`db.session.Database` takes it. Nothing is written.
    modality : str
        Modality (0008,0060).

    Raises
    ------
    DatabaseUnavailableError
        If the database cannot be reached.
    """
    query = (
        select(Instance.sop_instance_uid, Instance.spool_name)
        .where(Instance.modality == modality, Instance.conflict == 0)
        .order_by(Instance.sop_instance_uid)
    )
    engine = open_engine(url)
    try:
        with translated_errors(), Session(engine) as session:
            return [(uid, name) for uid, name in session.execute(query)]
    finally:
        engine.dispose()
