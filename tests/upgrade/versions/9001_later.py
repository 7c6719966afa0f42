"""What the next version adds to the schema."""

from alembic import op

import __main__

revision = "9001"
down_revision = __main__.BEFORE
usable_from = __main__.BEFORE


def upgrade() -> None:
    op.execute("ALTER TABLE installation ADD COLUMN note TEXT")
    if __main__.FAULT == "migration" or (__main__.FAULT.startswith("late") and not rehearsed()):
        raise RuntimeError("this migration does not work")


def downgrade() -> None:
    if __main__.FAULT == "stuck" and not rehearsed():
        raise RuntimeError("there is no way back")
    op.execute("ALTER TABLE installation DROP COLUMN note")


def rehearsed() -> bool:
    if op.get_bind().dialect.name != "sqlite":
        return False
    return any("upgrade-rehearsal" in row[2] for row in op.get_bind().exec_driver_sql("PRAGMA database_list"))
