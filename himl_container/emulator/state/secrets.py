"""The secrets of the workspace's key vault, in the emulator's own database (whose file only its owner may read)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from himl_container.emulator.state.database import Database

_TABLES = """
CREATE TABLE IF NOT EXISTS secrets (
    name TEXT PRIMARY KEY COLLATE NOCASE, value TEXT NOT NULL, content_type TEXT NOT NULL,
    created REAL NOT NULL, modified REAL NOT NULL);
"""


@dataclass(frozen=True)
class Secret:
    """One secret; times are seconds since the epoch."""

    name: str
    value: str
    content_type: str
    created: float
    modified: float


class Secrets:
    """All secrets of a workspace. Names do not distinguish case, as in Azure's Key Vault."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database, self._clock = database, clock
        database.make_tables(_TABLES)

    def put(self, name: str, value: str, content_type: str = "") -> Secret:
        """Store a secret, replacing one of the same name."""
        now = self._clock()
        with self._database.write() as connection:
            connection.execute(
                "INSERT INTO secrets VALUES (?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET "
                "value = excluded.value, content_type = excluded.content_type, modified = excluded.modified",
                (name, value, content_type, now, now),
            )
        found = self.find(name)
        assert found is not None
        return found

    def find(self, name: str) -> Secret | None:
        """Return a secret; None where there is none."""
        row = self._database.row("SELECT * FROM secrets WHERE name = ?", (name,))
        return None if row is None else Secret(*row)

    def all(self) -> list[Secret]:
        """Return all secrets, by name."""
        return [Secret(*row) for row in self._database.rows("SELECT * FROM secrets ORDER BY name")]

    def remove(self, name: str) -> bool:
        """Remove a secret, and say whether there was one."""
        with self._database.write() as connection:
            return connection.execute("DELETE FROM secrets WHERE name = ?", (name,)).rowcount > 0
