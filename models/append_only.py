"""What may be added to and never changed: rules that the database itself keeps, whoever writes.

They are laid down anew after every migration, because Alembic knows nothing of triggers.
"""

from sqlalchemy import Connection, text

APPEND_ONLY = ("audit_entry",)
"""Tables whose rows stay as they were written."""

RETENTION = "postroad.retention"
"""A transaction in which this is ``on`` may remove rows whose time is over."""

_REFUSE = f"""
    create or replace function refuse_change() returns trigger language plpgsql as $$
    begin
        if tg_op = 'DELETE' and current_setting('{RETENTION}', true) = 'on' then
            return old;
        end if;
        raise exception '% is append-only: % refused', tg_table_name, lower(tg_op)
            using errcode = 'insufficient_privilege';
    end $$
"""


def lay_down(connection: Connection) -> None:
    """Makes the rules, or makes them anew. The caller commits."""
    connection.execute(text(_REFUSE))
    for table in APPEND_ONLY:
        for name, occasion in (("refuse_change", "update or delete"), ("refuse_truncate", "truncate")):
            each = "row" if name == "refuse_change" else "statement"
            connection.execute(
                text(f"""create or replace trigger {name} before {occasion} on {table}
                         for each {each} execute function refuse_change()""")
            )
