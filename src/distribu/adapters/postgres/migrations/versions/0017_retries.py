"""What Stripe told us and could not be taken into account is tried again.

Revision ID: 0017
Revises: 0015
"""

from pathlib import Path

from alembic import op

revision = "0017"
down_revision = "0015"


def upgrade() -> None:
    """Run the SQL beside this file."""
    op.get_bind().exec_driver_sql(Path(__file__).with_suffix(".sql").read_text())
