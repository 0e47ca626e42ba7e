"""The SQLite file: connections, transactions, tables."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Database:
    """One SQLite file in write-ahead mode, safe for several threads and for a kill at any moment.

    What a transaction wrote is there after a kill as soon as :meth:`write` has ended.

    :param path: of the file; ``":memory:"`` in unit tests.
    """

    def __init__(self, path: Path | str) -> None:
        self._lock = threading.RLock()
        self._connection = sqlite3.connect(str(path), check_same_thread=False, isolation_level=None)
        self._connection.row_factory = sqlite3.Row
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")
        self._connection.execute("PRAGMA foreign_keys = ON")
        self._depth = 0

    def make_tables(self, script: str) -> None:
        """Create tables and indices (``CREATE ... IF NOT EXISTS``)."""
        with self._lock:
            self._connection.executescript(script)

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """Give the connection inside a transaction, which is undone where the block raises. May be nested."""
        with self._lock:
            outermost = self._depth == 0
            if outermost:
                self._connection.execute("BEGIN IMMEDIATE")
            self._depth += 1
            try:
                yield self._connection
            except BaseException:
                if outermost:
                    self._connection.execute("ROLLBACK")
                raise
            else:
                if outermost:
                    self._connection.execute("COMMIT")
            finally:
                self._depth -= 1

    def rows(self, sql: str, values: tuple[object, ...] = ()) -> list[sqlite3.Row]:
        """Return the rows of a query."""
        with self._lock:
            try:
                return self._connection.execute(sql, values).fetchall()
            except OverflowError:
                # A number that SQLite cannot hold (64 bits) is no row's.
                return []

    def row(self, sql: str, values: tuple[object, ...] = ()) -> sqlite3.Row | None:
        """Return the first row of a query; None where there is none."""
        found = self.rows(sql, values)
        return found[0] if found else None

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()
