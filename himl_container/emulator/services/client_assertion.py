"""Login by certificate: the client signs who it is with its private key (RFC 7523, section 2.2)."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from himl_container.emulator.installation import write_private
from himl_container.emulator.names import AAD_HOST

CLIENT_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

_SKEW = 300
"""Seconds by which two machines' clocks may differ, as Microsoft's own checks allow."""


def is_from(assertion: str, client_id: str, certificate: bytes, tenant: str, now: float) -> bool:
    """Whether an assertion was signed by the certificate's owner for a tenant's login, and is still valid."""
    key = x509.load_pem_x509_certificate(certificate).public_key()
    if not isinstance(key, rsa.RSAPublicKey):
        return False
    times = ("verify_exp", "verify_nbf", "verify_iat", "verify_aud")
    options: Any = {"require": ["exp"], **dict.fromkeys(times, False)}
    try:
        claims = jwt.decode(assertion, key, ["RS256", "PS256"], options=options)
    except jwt.InvalidTokenError:
        return False
    audience = str(claims.get("aud", "")).lower()
    for_us = any(audience.startswith(f"https://{AAD_HOST}/{name}/") for name in (tenant, "common", "organizations"))
    current = isinstance(claims["exp"], (int, float)) and claims["exp"] > now - _SKEW
    return for_us and current and claims.get("iss") == claims.get("sub") == client_id


def client_certificate(folder: Path) -> Path:
    """Return the file with a service principal's certificate and key (PEM), made where it is missing."""
    path = folder / "client.pem"
    if path.exists():
        return path
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "service principal of an emulator")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder(subject_name=name, issuer_name=name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=3650))
        .sign(key, hashes.SHA256())
    )
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    text = key.private_bytes(*form).decode() + certificate.public_bytes(serialization.Encoding.PEM).decode()
    write_private(path, text)
    return path
