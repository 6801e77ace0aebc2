"""Requests by people without a token, as nobody should send them: a strategy for Messages, as in `malformed`."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, Final

from hypothesis import strategies as st

from tests.hostile.malformed import ENDING, HOST, ID, JSON, NUMBER, TEXT, TIME, build, of
from tests.hostile.wire import Message

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.hostile.malformed import Draw

SECRET: Final = st.one_of(
    of(*(b"GRANT",) * 6),
    of(b"x", b"%00", b"%ff", b"%2e%2e", b"GRANT%00", b"GRANT%20", b"grant", b"\xff", b"A" * 7000, b"%C3%A9", b"'--"),
)
CREDENTIALS: Final = st.one_of(
    TEXT.map(lambda text: b"Basic " + base64.b64encode(b"a:" + text)),
    of(b"Basic", b"Basic ", b"Basic =", b"Basic QQ", b"Basic QTpB", b"basic QTpB", b"Basic " + b"QQ==" * 9000),
    of(b"Basic \xff", b"Bearer GRANT", b"Digest a=b", b"", b"Basic QTpB, Basic QTpB"),
)
MEMBERS: Final = {
    b"note": of(b'"x"', b"1", b"null", b'"\\ud800"', b'"' + b"x" * 5000 + b'"', b"{}", b"[]"),
    b"expires_at": st.one_of(TIME.map(lambda time: b'"' + time + b'"'), of(b"null", b"1", b'""')),
    b"max_files": st.one_of(NUMBER, of(b"true", b"null", b"1.0", b"1e3", b"100000", b"100001")),
    b"max_downloads": st.one_of(NUMBER, of(b"true", b"null", b"1.5", b"1e400")),
    b"max_size": NUMBER,
    b"types": of(b"[]", b'["*"]', b'["[a-"]', b"[[]]", b'"*"', b'["\\ud800"]', b"[" + b'"*",' * 200 + b'"*"]'),
    b"passphrase": of(b'""', b"null", b"1", b'"' + b"x" * 2000 + b'"'),
    b"owner": of(b'"eve"'),
}


def field(name: bytes, value: bytes) -> bytes:
    return b'--b\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (name, value)


@st.composite
def documents(draw: Draw) -> Message:
    """What is to become a grant or a link."""
    chosen = draw(st.lists(st.sampled_from(sorted(MEMBERS)), max_size=3))
    sound = b"{" + b", ".join(b'"%s": %s' % (name, draw(MEMBERS[name])) for name in chosen) + b"}"
    body = draw(st.one_of(st.just(sound), st.just(sound), JSON)) or b" "
    target = draw(of(b"/grants", b"/files/FILE/links", b"/files/" + ID + b"/links"))
    kind = draw(of(*(b"application/json",) * 5, b"text/plain", b"", b"application/json; charset=utf-7"))
    return Message(build(b"POST", target, [(b"Content-Type", kind)], body, host=draw(HOST)), draw(ENDING))


@st.composite
def guests(draw: Draw) -> Message:
    """Uploads by a grant."""
    target = (
        b"/g/" + draw(SECRET) + draw(of(b"", b"/", b"/a", b"/tus", b"/tus/" + ID, b"/uploads/" + ID, b"//", b"/a/b"))
    )
    fields = draw(st.sampled_from([[], [(b"Tus-Resumable", b"1.0.0"), (b"Upload-Length", draw(NUMBER))]]))
    if draw(st.booleans()):
        fields = [*fields, (b"Authorization", draw(CREDENTIALS))]
    body = draw(of(b"", b"hello"))
    method = draw(of(b"GET", b"HEAD", b"PUT", b"PUT", b"POST", b"PATCH", b"DELETE", b"OPTIONS"))
    return Message(build(method, target, fields, body, host=draw(HOST)), draw(ENDING), bodies=(body,))


@st.composite
def forms(draw: Draw) -> Message:
    """Forms by a grant that has a pass phrase, with what may be one in any place."""
    said = field(b"passphrase", draw(st.one_of(of(b"sesame", b"sesame", b"", b"x" * 70000), TEXT)))
    file = b'--b\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\nhello\r\n'
    body = b"".join(draw(st.permutations([said, file, field(b"a", b"b")]))) + b"--b--\r\n"
    fields = [(b"Content-Type", b"multipart/form-data; boundary=b")]
    return Message(build(b"POST", b"/g/CLOSED", fields, body), draw(ENDING), bodies=(b"hello",))


@st.composite
def secrets(draw: Draw) -> Message:
    """Downloads and deletions by a secret."""
    place = draw(of(b"/l/", b"/d/FILE/", b"/d/" + ID + b"/", b"/files/FILE/links/", b"/grants/"))
    method = draw(of(b"GET", b"HEAD", b"DELETE", b"POST"))
    target = place + draw(SECRET)
    return Message(build(method, target, [(b"Range", draw(TEXT))], host=draw(HOST)), draw(ENDING))


def strangers() -> st.SearchStrategy[Message]:
    """All of these. `GRANT`, `CLOSED` and `FILE` stand for what is put in when it is there."""
    kinds: list[Callable[..., Any]] = [documents, guests, forms, secrets]
    return st.one_of(*(kind() for kind in kinds))
