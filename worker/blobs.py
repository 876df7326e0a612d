"""Bytes of files that came with mail, stored once by content."""

from collections.abc import Iterable
from uuid import UUID

from sqlalchemy import Connection, text

from worker.inbound_mail import InboundFile

# Retention goes by when bytes were last used: those that come again are kept from then on.
_STORE = text("""
    insert into blob (workspace_id, sha256, size, data) values (:workspace_id, :sha256, :size, :data)
    on conflict (workspace_id, sha256) do update set used_at = excluded.used_at
        where blob.used_at < excluded.used_at - interval '12 hours'
""")


def store_files(connection: Connection, workspace_id: UUID, files: Iterable[InboundFile]) -> None:
    """Stores what is not there yet. The caller commits."""
    by_hash = {file.sha256: file for file in files}
    for sha256 in sorted(by_hash):  # one order for all, so that two cannot deadlock
        data = by_hash[sha256].data
        row = {"workspace_id": workspace_id, "sha256": sha256, "size": len(data), "data": data}
        connection.execute(_STORE, row)
