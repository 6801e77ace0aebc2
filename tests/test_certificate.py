from __future__ import annotations

import logging
import ssl
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from spool.certificate import Certificate
from spool.config import ConfigError
from tests.authority import Authority

if TYPE_CHECKING:
    from pathlib import Path

PAST = datetime(2020, 1, 1, tzinfo=UTC), datetime(2021, 1, 1, tzinfo=UTC)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def certificate(authority: Authority) -> Certificate:
    return Certificate(str(authority.certificate), str(authority.key))


def shown(certificate: Certificate, client: ssl.SSLContext) -> str:
    """The serial number of the certificate that a client is shown."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = client.wrap_bio(down, up, server_hostname="localhost"), certificate.context.wrap_bio(up, down, True)  # noqa: FBT003
    for end in ends * 4:
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue
    subject = ends[0].getpeercert()
    assert subject is not None
    return str(subject["serialNumber"])


def test_certificate_is_logged_with_its_end(authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    authority.issue(not_after=datetime(2199, 12, 31, tzinfo=UTC))
    certificate(authority)
    (record,) = caplog.records
    assert record.args == {"path": str(authority.certificate), "expires": "2199-12-31T00:00:00+00:00"}


@pytest.mark.parametrize(("name", "key"), [("certificate", "tls_cert"), ("key", "tls_key")])
def test_file_that_cannot_be_read_is_named(authority: Authority, name: str, key: str) -> None:
    getattr(authority, name).unlink()
    with pytest.raises(ConfigError, match=rf"server\.{key}: cannot read .*No such file"):
        certificate(authority)


def test_key_of_another_certificate_is_refused(authority: Authority) -> None:
    old = authority.key.read_bytes()
    authority.issue()
    authority.key.write_bytes(old)
    with pytest.raises(ConfigError, match=r"key\.pem is not the key of .*cert\.pem"):
        certificate(authority)


def test_encrypted_key_is_refused_without_asking(authority: Authority) -> None:
    authority.encrypt_key()
    with pytest.raises(ConfigError, match=r"server\.tls_key: .*key\.pem is encrypted"):
        certificate(authority)


@pytest.mark.parametrize("name", ["certificate", "key"])
def test_what_is_no_pem_is_refused(authority: Authority, name: str) -> None:
    getattr(authority, name).write_bytes(b"hello")
    with pytest.raises(ConfigError, match="in PEM"):
        certificate(authority)


def test_expired_certificate_is_used_with_a_warning(authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    authority.issue(not_before=PAST[0], not_after=PAST[1])
    certificate(authority)
    (record,) = caplog.records
    assert (record.msg, record.levelno) == ("certificate.invalid", logging.WARNING)
    assert record.args == {"path": str(authority.certificate), "reason": "certificate has expired"}


def test_renewed_certificate_is_shown_after_reload(authority: Authority) -> None:
    current = certificate(authority)
    first = shown(current, authority.client())
    authority.issue()
    assert shown(current, authority.client()) == first
    current.reload()
    assert shown(current, authority.client()) != first


def test_certificate_is_kept_if_the_new_one_is_none(authority: Authority) -> None:
    current = certificate(authority)
    first = shown(current, authority.client())
    key = authority.key.read_bytes()
    authority.issue()
    authority.key.write_bytes(key)
    with pytest.raises(ConfigError):
        current.reload()
    assert shown(current, authority.client()) == first
