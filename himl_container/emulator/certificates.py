"""The emulator's own certificate authority, and a certificate for each host name that it answers for."""

from __future__ import annotations

import datetime
import secrets
import ssl
import tempfile
import threading
from pathlib import Path

import certifi
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from himl_container.emulator.installation import BUNDLE, ROOTS, write_private

_YEARS = datetime.timedelta(days=3650)
_LEAF = datetime.timedelta(days=397)
"""Apple's systems refuse certificates that are valid for longer (support.apple.com/HT211025)."""


class Authority:
    """Signs certificates. Its private key lies in the emulator's folder, readable by its owner only.

    :param folder: of the emulator; ``ca.key`` and ``ca.pem`` are made where they are missing; ``bundle.pem`` is
        what clients trust, ``roots.pem`` the same with the usual roots, made at each start.
    :param roots: whether clients are let through to other hosts, so that ``bundle.pem`` needs the usual roots too.
        They are some 120 certificates, which take 35 ms to read, and the SDK reads them for every connection that it
        makes: three times for a submission.
    """

    def __init__(self, folder: Path, *, roots: bool = False) -> None:
        key_file, self.certificate_file = folder / "ca.key", folder / "ca.pem"
        if key_file.exists() and self.certificate_file.exists():
            key = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
            if not isinstance(key, ec.EllipticCurvePrivateKey):
                raise TypeError(f"{key_file} is not the key of an emulator")
            self._key = key
            self._certificate = x509.load_pem_x509_certificate(self.certificate_file.read_bytes())
        else:
            self._key = ec.generate_private_key(ec.SECP256R1())
            self._certificate = _authority(self._key)
            write_private(key_file, _key_pem(self._key))
            write_private(self.certificate_file, _pem(self._certificate))
        # The usual roots may have been renewed since the last start.
        own = _pem(self._certificate)
        usual = Path(certifi.where()).read_text(encoding="utf-8")
        write_private(folder / ROOTS, usual + own)
        write_private(folder / BUNDLE, usual + own if roots else own)
        # One key for all leaves: a certificate is then a signature only.
        self._leaf_key = ec.generate_private_key(ec.SECP256R1())
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._lock = threading.Lock()

    def context(self, host: str) -> ssl.SSLContext:
        """Return a server's TLS settings for one host name; the certificate is made on first demand."""
        with self._lock:
            found = self._contexts.get(host)
            if found is None:
                found = self._contexts[host] = self._make_context(host)
            return found

    def _make_context(self, host: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        # Python's ssl takes certificates from files only; this one is unlinked before anybody else could open it.
        with tempfile.NamedTemporaryFile("w", suffix=".pem", encoding="ascii") as file:
            file.write(_key_pem(self._leaf_key) + _pem(self._leaf(host)) + _pem(self._certificate))
            file.flush()
            context.load_cert_chain(file.name)
        return context

    def _leaf(self, host: str) -> x509.Certificate:
        now = datetime.datetime.now(datetime.timezone.utc)
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
        builder = (
            # A common name has at most 64 characters (RFC 5280, ub-common-name); clients look at the other name.
            x509.CertificateBuilder(subject_name=_name(host[:64]), issuer_name=self._certificate.subject)
            .public_key(self._leaf_key.public_key())
            .serial_number(_serial())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + _LEAF)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(usage, critical=False)
            .add_extension(_key_identifier(self._certificate), critical=False)
        )
        return builder.sign(self._key, hashes.SHA256())


def _authority(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    now = datetime.datetime.now(datetime.timezone.utc)
    # Two emulators' authorities must not share a name, or a client that trusts both looks at the wrong key.
    name = _name(f"himl-container emulator {secrets.token_hex(4)}")
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        x509.CertificateBuilder(subject_name=name, issuer_name=name)
        .public_key(key.public_key())
        .serial_number(_serial())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + _YEARS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _key_identifier(certificate: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    found = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(found)


def _serial() -> int:
    return x509.random_serial_number()


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return key.private_bytes(*form).decode()
