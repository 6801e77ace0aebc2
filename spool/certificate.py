"""The certificate that the server shows by TLS: read, tried out, and read again when it has been renewed."""

from __future__ import annotations

import asyncio
import logging
import ssl
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NoReturn

from spool.config import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from spool.config import Server

_log = logging.getLogger(__name__)

_PROTOCOLS: Final = ["http/1.1"]
_FLIGHTS: Final = 4
"""Turns of both ends within which every handshake is over."""


class Certificate:
    """A certificate and its key, for one listener."""

    def __init__(self, certificate: str, key: str, *, tried: bool = False) -> None:
        """Reads both, which are paths of PEM files. Blocks. Raises ConfigError.

        What another process has `tried` is not tried, and told to the log, once more.
        """
        self._files = certificate, key
        self._tried = tried
        self._newest = self.context = _load(*self._files, tried=tried)
        self.context.sni_callback = self._show_newest
        self.renewed = asyncio.Event()
        """To be set when the files have changed."""

    def reload(self) -> None:
        """Connections that come from now on are shown what the files hold now. Blocks.

        Raises ConfigError, and then they are shown what was shown before.
        """
        self._newest = _load(*self._files, tried=self._tried)

    def _show_newest(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        """Called at the start of each handshake: a context in use is never written to, for half of it could fail."""
        connection.context = self._newest

    async def reload_for_ever(self, reloaded: Callable[[], None] = lambda: None) -> None:
        """Reloads each time that `renewed` is set, and then calls `reloaded`."""
        while True:
            await self.renewed.wait()
            self.renewed.clear()
            try:
                await asyncio.to_thread(self.reload)
            except ConfigError as error:
                _log.warning("certificate.kept", {"reason": str(error)})
            else:
                reloaded()


def certificate_of(server: Server, *, tried: bool = False) -> Certificate | None:
    """What the configuration names; None without TLS. Blocks. Raises ConfigError."""
    return Certificate(server.tls_cert, server.tls_key, tried=tried) if server.tls_cert else None


def _load(certificate: str, key: str, *, tried: bool) -> ssl.SSLContext:
    for name, path in (("tls_cert", certificate), ("tls_key", key)):
        try:
            with open(path, "rb"):  # noqa: PTH123  # OpenSSL does not say which of the two it could not read
                pass
        except OSError as error:
            raise ConfigError(f"server.{name}: cannot read {path}: {error.strerror}") from error
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)  # with Python's ciphers, and heeding no SSLKEYLOGFILE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(_PROTOCOLS)

    def refuse() -> NoReturn:
        raise ConfigError(f"server.tls_key: {key} is encrypted: a server has nobody to ask for the passphrase")

    try:
        context.load_cert_chain(certificate, key, password=refuse)
        if not tried:
            _try(context, certificate)
    except ssl.SSLError as error:
        raise ConfigError(f"server.tls_cert, server.tls_key: {_reason(error, certificate, key)}") from error
    return context


def _reason(error: ssl.SSLError, certificate: str, key: str) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return f"{key} is not the key of {certificate}"
    if error.reason is None or "PEM" in str(error):
        return f"{certificate} and {key} are not a certificate and its key in PEM"
    return f"{certificate} and {key} cannot be used: {error.reason.replace('_', ' ').lower()}"


def _try(context: ssl.SSLContext, certificate: str) -> None:
    """A handshake with a client that trusts this very certificate: what it objects to, every client will.

    Raises SSLError if there is no handshake at all.
    """
    client = ssl.create_default_context(cafile=certificate)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    client.verify_flags &= ~ssl.VERIFY_X509_STRICT  # many a CA of one's own falls short of that
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = client.wrap_bio(down, up), context.wrap_bio(up, down, server_side=True)
    try:
        for end in ends * _FLIGHTS:
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()
    except ssl.SSLCertVerificationError as error:
        _log.warning("certificate.invalid", {"path": certificate, "reason": error.verify_message})
        return
    shown = ends[0].getpeercert() or {}
    expires = datetime.fromtimestamp(ssl.cert_time_to_seconds(str(shown["notAfter"])), UTC)
    _log.info("certificate.loaded", {"path": certificate, "expires": expires.isoformat()})
