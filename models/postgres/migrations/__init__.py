"""Alembic's script directory; `models.postgres.migrate` runs what lies in versions/."""
