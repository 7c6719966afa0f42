"""A newer version of this program: a copy with another version number and one more migration, which only adds."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import overnight.testing

PACKAGE = Path(overnight.testing.__file__).parents[1]
VERSION = "9.9.9"
MIGRATION = '''
"""A revision to come, on which programs of today may go on."""
from alembic import op
revision = "9999"
down_revision = "{head}"
usable_from = "{head}"

def upgrade() -> None:
    op.execute("ALTER TABLE runs ADD COLUMN remark TEXT")

def downgrade() -> None:
    op.execute("ALTER TABLE runs DROP COLUMN remark")
'''


def make_newer(folder: Path) -> Path:
    """The folder to put into PYTHONPATH so that `python -m overnight` is the newer one."""
    copy = folder / "overnight"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "version.py").write_text(f'"""A version to come."""\n\nVERSION = "{VERSION}"\n', encoding="utf-8")
    migrate = copy / "stores/sql/migrate.py"
    text = migrate.read_text(encoding="utf-8")
    found = re.search(r'^HEAD: Final = "(\w+)"$', text, re.MULTILINE)
    assert found, "the program's revision is written in another way now"
    migrate.write_text(text.replace(found[0], 'HEAD: Final = "9999"'), encoding="utf-8")
    versions = copy / "stores/sql/migrations/versions"
    (versions / "9999_more.py").write_text(MIGRATION.format(head=found[1]), encoding="utf-8")
    return folder
