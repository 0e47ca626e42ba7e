"""Access tokens: JSON Web Tokens signed with the emulator's own random key, as Microsoft's are with theirs."""

from __future__ import annotations

import hashlib
import threading
import uuid
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from himl_container.emulator.identity import Identity, Kind
from himl_container.emulator.installation import Installation, write_private

ARM_AUDIENCES = frozenset({"https://management.core.windows.net", "https://management.azure.com"})
ML_AUDIENCES = frozenset({"https://ml.azure.com"})
VAULT_AUDIENCES = frozenset({"https://vault.azure.net"})

_ALGORITHM = "RS256"
_REMEMBERED = 4096
_NOT_BY_LIBRARY = ("verify_aud", "verify_exp", "verify_nbf", "verify_iat")


class BadToken(Exception):  # noqa: N818  # a finding about a client's token
    """A token is not one of ours, has expired, or is meant for another service.

    :param code: the word with which Azure Resource Manager refuses it.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


class Tokens:
    """Gives tokens out and checks them.

    :param key: the private key, PEM.
    :param clock: seconds since the epoch.
    :param lifetime: of a token, in seconds.
    """

    def __init__(self, key: bytes, installation: Installation, clock: Callable[[], float], lifetime: float) -> None:
        private = serialization.load_pem_private_key(key, password=None)
        if not isinstance(private, rsa.RSAPrivateKey):
            raise TypeError("not an RSA key")
        self._private, self._public = private, private.public_key()
        form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        self._key_id = hashlib.sha256(self._public.public_bytes(*form)).hexdigest()[:27]
        self._tenant, self._object = installation.workspace.tenant_id, installation.object_id
        self._clock, self.lifetime = clock, lifetime
        self._checked: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()

    def issue(self, identity: Identity, audience: str, lifetime: float | None = None) -> tuple[str, int]:
        """Return a token for a bearer and a service, and when it expires (seconds since the epoch)."""
        claims = {"appid": identity.name, "oid": self._object, "sub": self._object, "tid": self._tenant, "ver": "1.0"}
        if identity.kind is Kind.JOB:
            claims["run_id"] = identity.run_id
        claims["kind"] = identity.kind.value
        return self.sign({**claims, "aud": audience}, lifetime)

    def sign(self, claims: dict[str, Any], lifetime: float | None = None) -> tuple[str, int]:
        """Return any claims as a token of this emulator, with the time at which it expires."""
        now = int(self._clock())
        expires = now + int(self.lifetime if lifetime is None else lifetime)
        # A token that was given in the same second must not be the same text: some clients compare.
        times = {"iat": now, "nbf": now, "exp": expires, "uti": uuid.uuid4().hex}
        issuer = f"https://sts.windows.net/{self._tenant}/"
        text = jwt.encode({"iss": issuer, **claims, **times}, self._private, _ALGORITHM, {"kid": self._key_id})
        return text, expires

    def identity(self, token: str, audiences: Collection[str]) -> Identity:
        """Return the bearer of a token.

        :param audiences: of the service that was asked, without a slash at the end.
        :raises BadToken: it is not ours, has expired, or is for another service.
        """
        claims = self.claims(token)
        if str(claims.get("aud", "")).rstrip("/") not in audiences:
            raise BadToken("InvalidAuthenticationTokenAudience", "The access token is for another audience.")
        kind = Kind(claims.get("kind", Kind.NOBODY.value))
        if kind is Kind.NOBODY:
            raise BadToken("InvalidAuthenticationToken", "The access token is invalid.")
        return Identity(kind, str(claims.get("appid", "")), str(claims.get("run_id", "")))

    def claims(self, token: str) -> dict[str, Any]:
        """Return what a token says, once its signature and times were checked; nothing is said of its audience.

        :raises BadToken: it is not ours or has expired.
        """
        with self._lock:
            claims = self._checked.get(token)
        if claims is None:
            claims = self._verified(token)
            with self._lock:
                if len(self._checked) >= _REMEMBERED:
                    self._checked.clear()
                self._checked[token] = claims
        now = self._clock()
        if now >= claims["exp"]:
            raise BadToken("ExpiredAuthenticationToken", "The access token has expired.")
        return claims

    def public_key(self) -> dict[str, Any]:
        """Return the key that checks the tokens, as JSON Web Key (RFC 7517)."""
        found: dict[str, Any] = jwt.algorithms.RSAAlgorithm.to_jwk(self._public, as_dict=True)
        return {**found, "use": "sig", "alg": _ALGORITHM, "kid": self._key_id}

    def _verified(self, token: str) -> dict[str, Any]:
        # Times are compared with the emulator's clock, when a token is used.
        options: Any = {"require": ["exp"], **dict.fromkeys(_NOT_BY_LIBRARY, False)}
        try:
            found = jwt.decode(token, self._public, [_ALGORITHM], options=options)
        except jwt.InvalidTokenError:
            raise BadToken("InvalidAuthenticationToken", "The access token is invalid.") from None
        if found.get("tid", self._tenant) != self._tenant:
            raise BadToken("InvalidAuthenticationTokenTenant", "The access token is from another tenant.")
        return dict(found)


def token_key(folder: Path) -> bytes:
    """Return the key that signs an emulator's tokens (PEM), made at its first start, readable by its owner only."""
    path = folder / "token.key"
    if not path.exists():
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        write_private(path, key.private_bytes(*form).decode())
    return path.read_bytes()
