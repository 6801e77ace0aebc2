"""A certificate authority of one's own, and what it issues."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

if TYPE_CHECKING:
    from pathlib import Path


class Authority:
    """Issues certificates for this machine, each in the place of the one before."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        self._ca = trustme.CA()
        self.trusted = directory / "ca.pem"
        self.certificate = directory / "cert.pem"
        self.key = directory / "key.pem"
        self._ca.cert_pem.write_to_path(self.trusted)
        self.issue()

    def issue(self, **options: Any) -> None:
        """`options` are those of trustme."""
        issued = self._ca.issue_cert("127.0.0.1", "localhost", **options)
        self.certificate.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
        self.key.write_bytes(issued.private_key_pem.bytes())

    def encrypt_key(self) -> None:
        key = load_pem_private_key(self.key.read_bytes(), None)
        secret = BestAvailableEncryption(b"secret")
        self.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, secret))

    @property
    def environment(self) -> dict[str, str]:
        """What makes a server use it, and whoever asks for no context of their own trust it."""
        return {
            "SPOOL_SERVER_TLS_CERT": str(self.certificate),
            "SPOOL_SERVER_TLS_KEY": str(self.key),
            "SSL_CERT_FILE": str(self.trusted),
        }

    def client(self) -> ssl.SSLContext:
        """What a client needs."""
        return ssl.create_default_context(cafile=self.trusted)
