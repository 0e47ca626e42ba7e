"""The administrator of the workspace's container registry: two passwords, either of which can be made anew."""

from __future__ import annotations

import hmac
import secrets

from himl_container.emulator.http import Refusal
from himl_container.emulator.installation import Installation
from himl_container.emulator.state.database import Database

PASSWORDS = ("password", "password2")

_TABLES = """
CREATE TABLE IF NOT EXISTS registry_account (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""


class RegistryAccount:
    """Who may log in to the registry with a password."""

    def __init__(self, database: Database, installation: Installation) -> None:
        self._database, self._installation = database, installation
        self.username = installation.workspace.registry
        database.make_tables(_TABLES)

    def passwords(self) -> tuple[str, str]:
        """Return both passwords."""
        first, second = self._installation.registry_passwords
        return self._value(PASSWORDS[0], first), self._value(PASSWORDS[1], second)

    def renew(self, name: str) -> None:
        """Replace a password. Tokens that were given for the old one are valid until they expire.

        :raises Refusal: 400, there is no password of this name.
        """
        if name not in PASSWORDS:
            raise Refusal(400, "InvalidPasswordName", f"The password is one of {', '.join(PASSWORDS)}.")
        self._keep(name, secrets.token_urlsafe(30))

    @property
    def enabled(self) -> bool:
        """Whether the administrator may log in at all."""
        return self._value("enabled", "true") == "true"

    def enable(self, enabled: bool) -> None:
        """Let the administrator log in, or not."""
        self._keep("enabled", "true" if enabled else "false")

    def opens(self, username: str, password: str) -> bool:
        """Whether a name and a password are the administrator's, or those of the service principal."""
        made = self._installation
        pairs = [(made.client_id, made.client_secret)]
        if self.enabled:
            pairs += [(self.username, value) for value in self.passwords()]
        # All are compared, so that the time tells nothing.
        found = [_same(username.lower(), name) & _same(password, value) for name, value in pairs]
        return any(found)

    def _value(self, name: str, default: str) -> str:
        row = self._database.row("SELECT value FROM registry_account WHERE name = ?", (name,))
        return default if row is None else str(row["value"])

    def _keep(self, name: str, value: str) -> None:
        with self._database.write() as connection:
            connection.execute("INSERT OR REPLACE INTO registry_account VALUES (?, ?)", (name, value))


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode(), wanted.encode())
