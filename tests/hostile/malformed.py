"""Requests as nobody should send them: strategies for Messages, by what is wrong with them.

Whatever is built here knows what may come of it: a file that is listed afterwards must be one of the bodies that a
whole request carried, or the content of a part whose two marks are still there.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Any, Final

from hypothesis import strategies as st

from tests.hostile.wire import Message

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Draw = Callable[[st.SearchStrategy[Any]], Any]

# A table of odd values is read by the line, not by the value.
# fmt: off

Field = tuple[bytes, bytes]
OPEN: Final = b"<<[["
"""Begins the content of every part, as SHUT ends it; what is published with one has the other."""
SHUT: Final = b"]]>>"
ID: Final = b"0123456789abcdef0123456789abcdef"


def of(*values: bytes) -> st.SearchStrategy[bytes]:
    return st.sampled_from(values)


TEXT: Final = st.one_of(
    st.binary(max_size=24).map(lambda data: data.translate(None, b"\r\n\0")),
    st.text(max_size=12).map(lambda text: text.encode("utf-8", "surrogatepass").translate(None, b"\r\n\0")),
    of(
        b"", b" ", b"\t", b"a" * 300, b"\xff", b"\xed\xa0\x80", b"\xc0\xaf", "\u202egnp.exe".encode(),
        b"../../etc/passwd",
    ),
    of(
        b"C:\\con", b"%00", b"%0d%0aSet-Cookie:%20a=b", b"%ff%fe", b"%", b"%zz", b"%2e%2e%2f", b'"', b"\\", b";",
        b",", b"=" * 99,
    ),
)
BYTES: Final = st.one_of(
    st.binary(max_size=40), of(b"", b"\0", b"\r\n", b"\r\n--b--\r\n", b"x" * 5000, b"\x89PNG\r\n\x1a\n", b"{}")
)
NUMBER: Final = of(
    b"0", b"1", b"5", b"-1", b"+1", b"00", b"007", b"0x10", b"1e3", b"1_0", b"1.0", b"", b" ", b"1 1", b"1,1",
    b"5, 5",
    *(b"18446744073709551615", b"18446744073709551616", b"9223372036854775807", b"9223372036854775808", b"9" * 400),
    *(b"999999999999999", b"1000000000000000", b"999999999999999999", b"NaN", b"inf", b"\xd9\xa1", b"1\t", b";", b"?1"),
)
TIME: Final = of(
    b"2026-11-25", b"2026-11-25T10:00:00Z", b"0001-01-01T00:00:00+14:00", b"9999-12-31T23:59:59-14:00", b"2026-W48-3",
    b"9999-12-31T23:59:59.999999Z", b"2026-02-30", b"now", b"2026-11-25T10:00:00+99:99", b"2026-11-25T24:00:00Z",
    b"1",
)
METHOD: Final = of(
    *(b"GET", b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"TRACE", b"CONNECT", b"PRI", b"get"),
    *(b"M-SEARCH", b"FOO", b"", b"G\0T", b"G ET", b"GET\t", b"\xffET", b"A" * 9000, b"SOURCE", b"QUERY", b"G\xc3\x89T"),
)
TARGET: Final = st.one_of(
    of(
        *(
            b"/", b"*", b"//", b"/files", b"/files/", b"/files/" + ID, b"/files/latest", b"/tus", b"/tus/" + ID,
            b"/uploads/" + ID,
        )
    ),
    of(
        *(
            b"/healthz", b"/readyz", b"/problems/gone", b"/media/" + ID + b"/x", b"http://localhost/files",
            b"http://[::1", b"/%",
        )
    ),
    of(
        *(
            b"localhost:80", b"/files/%2e%2e/%2e%2e", b"/files/..", b"/%ff", b"/\xff", b"/a b", b"/?", b"/#x", b"",
            b"/" + b"a" * 9000,
        )
    ),
    of(
        *(
            b"http://user:pw@localhost/files", b"//localhost/files", b"/files?limit=1", b"/files;x", b"http:///files",
            b"/\x01", b"http://a:99999/",
        )
    ),
    TEXT.map(lambda text: b"/files/" + text),
    TEXT.map(lambda text: b"/" + text),
    TEXT.map(lambda text: b"/problems/" + text),
)
VERSION: Final = of(
    *(b"HTTP/1.1",) * 6, b"HTTP/1.0", b"HTTP/2.0", b"HTTP/0.9", b"HTTP/1.2", b"HTTP/9.9", b"http/1.1", b"",
    b"HTTP/1.1 x", b"HTTP/11", b"ICE/1.0",
)
HOST: Final = of(
    *(b"localhost",) * 120, b"", b" ", b"localhost:80", b"127.0.0.1", b"[::1]", b"[::1", b"localhost:x",
    b"evil.example", b"a b", b"\xff", b"\xff@localhost", b"u@localhost", b"localhost/x", b"localhost?x",
    b"localhost#x", b"localhost\\x", b"localhost:99999", b"l\xc3\xb6calhost", b"localhost,localhost", b"x" * 300,
    b"localhost\x0b", b"0", b"2130706433", b"127.1", b"<script>@localhost", b"localhost:80:80",
    b"\xe2\x84\xaa@127.0.0.1",
)
NAME: Final = st.one_of(
    of(
        b"X-A", b"Range", b"Cookie", b"Connection", b"Upgrade", b"Expect", b"TE", b"Trailer", b"Origin", b"Accept",
        b"Forwarded", b"Keep-Alive",
    ),
    of(
        b"X-Forwarded-For", b"X-Forwarded-Host", b"X-Forwarded-Proto", b"X-HTTP-Method-Override",
        b"Access-Control-Request-Method", b"Via",
    ),
    of(
        b"", b"X A", b"X-A ", b"\xff", b"X:A", b"(x)", b"X\0", b"X" * 3000, b"Content-Length ", b" Content-Length",
        b"Transfer-Encoding\t",
    ),
    of(
        b"Sec-WebSocket-Key", b"Sec-Fetch-Site", b"X-Request-ID", b"Authorization", b"If-Range", b"Idempotency-Key",
        b"Content-Type", b"HTTP2-Settings",
    ),
)
VALUE: Final = st.one_of(
    TEXT,
    NUMBER,
    of(
        b"close", b"keep-alive", b"Upgrade", b"websocket", b"h2c", b"100-continue", b"gzip", b"chunked", b"trailers",
        b"*", b"Transfer-Encoding",
    ),
    of(
        b"a\0b", b"a\x01b", b"a\x7fb", b"a\x0bb", b"x" * 70000, b"a,b,,c", b"http://evil.example", b"null", b"PATCH",
        b"HEAD", b"cross-site",
    ),
)


def build(
    method: bytes, target: bytes, fields: Sequence[Field] = (), body: bytes = b"", *, host: bytes = b"localhost"
) -> bytes:
    """A request whose framing is as it should be, unless the fields say otherwise."""
    lines = [b"%s %s HTTP/1.1" % (method, target), b"Host: " + host, *(b"%s: %s" % field for field in fields)]
    if body and not any(name.lower() in (b"content-length", b"transfer-encoding") for name, _ in fields):
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


@st.composite
def heads(draw: Draw) -> Message:
    """Request lines and fields of any shape."""
    line = draw(of(b" ", b" ", b" ", b"  ", b"\t", b"")).join((draw(METHOD), draw(TARGET), draw(VERSION)))
    end = draw(of(b"\r\n", b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b"\r\r\n", b"\n\r"))
    lines = [draw(of(b"", b"", b"", b"\r\n", b"\n", b" ", b"\0", b"\x16\x03\x01")) + line]
    lines += [b"Host: " + draw(HOST) for _ in range(len(draw(of(b"1", b"1", b"1", b"1", b"", b"11"))))]
    for _ in range(len(draw(of(b"", b"1", b"11", b"111")))):
        colon = draw(of(b": ", b": ", b":", b" : ", b"", b":\t"))
        lines.append(draw(of(b"", b"", b"", b" ", b"\t")) + draw(NAME) + colon + draw(VALUE))
    return Message(end.join(lines) + end + draw(of(end, end, end, b"\n\n", b"\r\n\r\n", b"")), bodies=(b"",))


@st.composite
def floods(draw: Draw) -> Message:
    """A great many fields, or of one name."""
    count = int(draw(of(b"50", b"120", b"200", b"2000")))
    name, value = draw(NAME), draw(VALUE)[:64]
    numbered = draw(of(b"", b"1"))
    fields = [(name + (b"%d" % at if numbered else b""), value) for at in range(count)]
    return Message(build(draw(of(b"GET", b"PUT", b"POST")), b"/files", fields))


SIZE: Final = of(
    b"0", b"5", b"5", b"05", b"0x5", b"-5", b"+5", b"5 ", b" 5", b"", b"g", b"ffffffffffffffff", b"10000000000000000",
    b"F" * 40, b"5\t;x", b"5;a=b", b'5;a="\r\n"', b"5;" + b"x" * 9000, b"5\n", b"0" * 5000 + b"5", b"5;\n", b"5;\0",
    b"1_0", b"\xef\xbc\x95",
)
TRAILER: Final = of(
    b"", b"", b"X: y\r\n", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"X\r\n", b": y\r\n",
    b" X: y\r\n", b"X: \0\r\n", b"X: y\n", b"Host: evil\r\n", b"X: y\r\n" * 500, b"X: " + b"y" * 70000 + b"\r\n",
    b"Upload-Checksum: sha1 x\r\n", b"X : y\r\n",
)


@st.composite
def chunked(draw: Draw) -> Message:
    """Chunked bodies whose chunks are not quite chunks."""
    data = b"".join(
        draw(SIZE)
        + draw(of(b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b""))
        + b"hello"
        + draw(of(b"\r\n", b"\r\n", b"\n", b"", b"xx\r\n"))
        for _ in range(len(draw(of(b"1", b"11", b"1111"))))
    )
    data += (
        draw(of(b"0\r\n", b"0\r\n", b"00\r\n", b"0;x\r\n", b"", b"0\n", b"-0\r\n"))
        + draw(TRAILER)
        + draw(of(b"\r\n", b"\r\n", b"", b"\n"))
    )
    coding = draw(
        of(
            b"chunked", b"chunked", b"Chunked", b"chunked ", b"x\x0bchunked", b"gzip, chunked", b"chunked, chunked",
            b"identity", b'"chunked"',
        )
    )
    fields = [(b"Transfer-Encoding", coding), (b"Trailer", b"X")]
    whole = tuple(b"hello" * count for count in range(1, 5))
    return Message(build(draw(of(b"PUT", b"POST")), b"/files/c", fields, data), draw(ENDING), bodies=whole)


ENDING: Final = of(*("wait",) * 5, "half", "half", "reset")
SMUGGLED: Final = b"GET /files?smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"


@st.composite
def smuggled(draw: Draw) -> Message:
    """Two framings in one request, so that two readers could disagree on where it ends."""
    length = (b"Content-Length", draw(of(b"5", b"%d" % (len(SMUGGLED) + 5), b"0", b"18446744073709551615")))
    name = draw(of(b"Transfer-Encoding", b"transfer-encoding", b"TRANSFER-ENCODING"))
    coding = (
        name,
        draw(of(b"chunked", b"Chunked", b" chunked", b"gzip, chunked", b"chunked, identity", b"chunked;q=1")),
    )
    other = (
        b"Content-Length",
        draw(of(b"6", b"1", b"5,6", b"+5", b"-5", b"5 5", b"0x5", b"5;", b"18446744073709551616", b"9" * 400)),
    )
    pairs = {
        b"a": [length, coding], b"b": [coding, length], b"c": [length, other], b"d": [other, length],
        b"e": [coding, coding, length],
    }
    fields = pairs[draw(of(*pairs))]
    data = build(draw(of(b"PUT", b"POST", b"GET", b"DELETE")), b"/files/s", fields, b"0\r\n\r\n" + SMUGGLED)
    return Message(data, refused=True, final=True)


@st.composite
def early_ends(draw: Draw) -> Message:
    """Bodies that are shorter than what was declared; what is published of one has no SHUT."""
    body, missing = OPEN + draw(BYTES), len(draw(of(b"1", b"1" * 5000)))
    fields = [(b"Content-Length", b"%d" % (len(body) + missing))]
    if draw(of(b"", b"1")):
        data = build(b"PUT", b"/files/e", fields, body)
    else:
        form = form_of([part(b'form-data; name="f"; filename="e"', [], body)], b"b")
        fields = [
            (b"Content-Length", b"%d" % (len(form) + missing)),
            (b"Content-Type", b"multipart/form-data; boundary=b"),
        ]
        data = build(b"POST", b"/files", fields, form)
    # the missing bytes are more than the probe has, or there is no probe
    return Message(data, "reset" if missing == 1 else "half", refused=True)


def part(disposition: bytes, fields: Sequence[Field], content: bytes) -> bytes:
    lines = [b"Content-Disposition: " + disposition, *(b"%s: %s" % field for field in fields)]
    return b"\r\n".join(lines) + b"\r\n\r\n" + content


def form_of(parts: Sequence[bytes], boundary: bytes, end: bytes = b"--\r\n") -> bytes:
    return b"".join(b"--%s\r\n%s\r\n" % (boundary, text) for text in parts) + b"--" + boundary + end


QUOTED: Final = TEXT.map(lambda text: b'"' + text + b'"')
DISPOSITION: Final = st.one_of(
    QUOTED.map(lambda name: b'form-data; name="f"; filename=' + name),
    TEXT.map(lambda name: b'form-data; name="f"; filename=' + name),
    TEXT.map(lambda name: b"form-data; name=\"f\"; filename*=UTF-8''" + name),
    QUOTED.map(lambda name: b"form-data; name=" + name),
    of(
        *(
            b"", b"form-data", b"attachment; filename=x", b'form-data; name="f"; name="g"', b"form-data; filename=x",
            b"form-data;;name=f;;filename=x",
        )
    ),
    of(
        b'form-data; name="f"; filename="x', b'form-data; name="f"; filename="\\"',
        b"form-data; name=f; filename*0=a; filename*1=b",
    ),
    of(
        b'form-data; name="sha256"', b'form-data; name="expires_at"', b'form-data; name="f"; filename=""',
        b'form-data; name="f"; filename="' + b"n" * 9000,
    ),
)
PART_FIELD: Final = st.tuples(
    of(
        b"Content-Type", b"Content-Transfer-Encoding", b"Content-Disposition", b"X", b"X ", b"", b"\xff",
        b"Content-Length", b" folded",
    ),
    st.one_of(
        VALUE.map(lambda value: value[:9000]),
        of(b"multipart/mixed; boundary=c", b"multipart/mixed", b"base64", b"7bit", b"text/html", b"a/b;" * 99),
    ),
)
CONTENT: Final = BYTES.map(lambda data: OPEN + data.replace(b"--b", b"--x") + SHUT)  # it ends no form
BOUNDARY: Final = of(
    *(b"b",) * 6, b"b" * 70, b"b" * 71, b"", b"b b", b"b ", b"'()+_,-./:=?", b"--", b"\xff", b"b;c", b"b\0"
)
NESTED: Final = b'--c\r\nContent-Disposition: file; filename="n"\r\n\r\n' + OPEN + SHUT + b"\r\n--c"


@st.composite
def multiparts(draw: Draw) -> Message:
    """Forms with something wrong in their boundaries, headers, parts or ends."""
    boundary = draw(BOUNDARY)
    parts = []
    for _ in range(len(draw(of(b"1", b"1", b"11", b"111", b"")))):
        fields = [draw(PART_FIELD) for _ in range(len(draw(of(b"", b"", b"1", b"11", b"1" * 20))))]
        parts.append(part(draw(DISPOSITION), fields, draw(CONTENT)))
    if draw(of(b"", b"", b"", b"1")):
        nested = NESTED + draw(of(b"--\r\n", b"--", b"", b"\r\n", b"--\r\nx"))
        parts.append(
            part(
                b'form-data; name="f"',
                [(b"Content-Type", b"multipart/mixed; boundary=" + draw(of(b"c", b"c", b"b", b"")))],
                nested,
            )
        )
    body = form_of(parts, boundary, draw(of(*(b"--\r\n",) * 4, b"--", b"", b"-", b"\r\n", b"--x", b"-- \t\r\n", b"\n")))
    body = (
        draw(of(*(b"",) * 4, b"preamble\r\n", b"\r\n", b"\n", b"x" * 70000, b"--b", b"\r\n--b\n"))
        + body
        + draw(of(b"", b"", b"x", b"x" * 70000, b"\r\n--b\r\n"))
    )
    quoted = draw(of(b"%s", b'"%s"', b"'%s'")) % boundary
    kind = draw(
        of(
            *(b"multipart/form-data; boundary=",) * 5, b"multipart/form-data;boundary =",
            b"multipart/mixed; boundary=", b"Multipart/Form-Data; x; boundary=",
        )
    )
    data = build(b"POST", b"/files", [(b"Content-Type", kind + quoted)], body)
    return Message(data, draw(ENDING), refused=b"--%s--" % boundary not in body)


@st.composite
def tiny_parts(draw: Draw) -> Message:
    """Many parts of next to nothing."""
    kind = draw(
        of(
            b'form-data; name="a"', b'form-data; name="f"; filename="a"', b'form-data; name="sha256"',
            b'form-data; name=""; filename=""',
        )
    )
    count = int(draw(of(b"3", b"101", b"201", b"3000")))
    body = form_of([part(kind, [], OPEN + SHUT)] * count, b"b", draw(of(b"--", b"--\r\n", b"")))
    return Message(build(b"POST", b"/files", [(b"Content-Type", b"multipart/form-data; boundary=b")], body))


def encoded(data: bytes) -> bytes:
    return base64.b64encode(data)


METADATA: Final = st.one_of(
    TEXT.map(lambda text: b"filename " + encoded(text)),
    TEXT.map(lambda text: b"filetype " + encoded(text) + b",name " + encoded(text)),
    TIME.map(lambda time: b"expires_at " + encoded(time)),
    of(
        *(
            b"", b",", b"a", b"a ,b", b"a b c", b"a a", b"a YQ==,a YQ==", b"a YQ", b"a Y===", b"a =",
            b"sha256 " + encoded(b"0" * 64), b"sha256 MDA=",
        )
    ),
    of(
        b"filename" + b" " * 500 + b"YQ==", b"k" * 60000, b",".join(b"k%d YQ==" % at for at in range(3000)),
        b"a " + b"YQ==" * 9000,
    ),
    VALUE,
)
CHECKSUM: Final = st.one_of(
    of(
        b"sha1 " + encoded(hashlib.sha1(b"hello").digest()), b"sha1 ", b"sha1", b"sha1 AAAA", b"crc32 AAAAAA==",
        b"md5 " + b"A" * 24, b"sha1 =" + b"A" * 27,
    ),
    VALUE,
)
CONCAT: Final = st.one_of(
    of(
        b"partial", b"final", b"final;", b"final; ", b"final;/tus/" + ID, b"final;/tus/" + ID + b" /tus/" + ID,
        b"final;http://x/tus/", b"PARTIAL", b"partial;",
    ),
    of(
        b"final;/files/x", b"final;/tus/../x", b"final;/tus/%2f", b"final;" + b" /tus/x" * 9000,
        b"final;/tus/" + b"x" * 9000, b"partial, partial",
    ),
    VALUE,
)
TUS_FIELDS: Final[dict[bytes, st.SearchStrategy[bytes]]] = {
    b"Upload-Length": NUMBER, b"Upload-Offset": NUMBER, b"Upload-Metadata": METADATA, b"Upload-Checksum": CHECKSUM,
    b"Upload-Concat": CONCAT, b"Upload-Defer-Length": NUMBER,
    b"Tus-Resumable": of(b"1.0.0", b"0.2.2", b"", b"1.0.0, 1.0.0", b"\xff"),
    b"Content-Type": of(b"application/offset+octet-stream", b"text/plain", b"", b"APPLICATION/OFFSET+OCTET-STREAM"),
    b"Trailer": of(b"Upload-Checksum", b"upload-checksum, x", b",", b"\xff"),
    b"X-HTTP-Method-Override": of(b"PATCH", b"DELETE", b"HEAD", b"GET", b"patch", b""),
    b"Expect": of(b"100-continue", b"x"),
}
DRAFT_ITEM: Final = st.one_of(
    NUMBER,
    of(
        *(
            b"?1", b"?1", b"?0", b"?0", b"?", b"?2", b"?1;a=1", b"?1;a;b;c=(", b'"?1"', b"(?1)", b"?1, ?0",
            b"@1659578233", b"@999999999999999", b"@-999999999999999",
        )
    ),
    of(
        *(
            b"@99999999999999999999", b'%"f%c3%bc"', b'%"%ff"', b'%"\xff"', b":YQ==:", b":YQ:", b"::", b":=:", b"1.5",
            b"1.5555", b"-0", b"\xff", b"?1" + b";a" * 9000,
        )
    ),
    of(
        b"a" * 60000, b'"' + b"\\\\" * 30000 + b'"', b"((((", b"a=1", b"a;" * 9000, b"*a/b:c", b"tru\x7fe", b"?1 ",
        b"1" * 15, b"1" * 16, b"-1" + b"0" * 14,
    ),
    TEXT,
)
DIGEST: Final = st.one_of(
    of(
        b"sha-256=:" + encoded(hashlib.sha256(b"hello").digest()) + b":", b"sha-512=:AA==:", b"sha-256=AA==",
        b"sha-256", b"sha-256=:AA:", b"SHA-256=:AA==:",
    ),
    of(
        b"md5=:AA==:", b"sha-256=:" + b"A" * 60000 + b":", b"sha-256=();a", b"sha-256=(:AA==:)", b"sha-256=:AA==:,",
        b"a=1, " * 9000, b"sha-256=?1, sha-256=:AA==:",
    ),
    DRAFT_ITEM,
)
DRAFT_FIELDS: Final[dict[bytes, st.SearchStrategy[bytes]]] = {
    b"Upload-Complete": DRAFT_ITEM, b"Upload-Offset": DRAFT_ITEM, b"Upload-Length": DRAFT_ITEM,
    b"Upload-Draft-Interop-Version": st.one_of(of(b"6", b"8", b"10"), DRAFT_ITEM), b"Repr-Digest": DIGEST,
    b"Content-Digest": DIGEST,
    b"Content-Disposition": st.one_of(DISPOSITION, QUOTED.map(lambda name: b"attachment; filename=" + name)),
    b"Content-Type": of(
        b"application/partial-upload", b"multipart/form-data; boundary=b", b"text/plain", b"", b"\xff/\xff"
    ),
    b"Content-Encoding": of(b"identity", b"gzip", b"", b"identity, identity", b"\xff"),
    b"Expect": of(b"100-continue", b"x"),
}
SOUND_TUS: Final = {
    b"Tus-Resumable": b"1.0.0", b"Upload-Length": b"5", b"Content-Type": b"application/offset+octet-stream",
}
SOUND_DRAFT: Final = {b"Upload-Complete": b"?1", b"Upload-Draft-Interop-Version": b"8"}


@st.composite
def tus(draw: Draw) -> Message:
    """Fields of tus 1.0.0."""
    chosen = draw(st.sets(st.sampled_from(sorted(TUS_FIELDS)), min_size=1, max_size=4))
    fields = SOUND_TUS | {name: draw(TUS_FIELDS[name]) for name in sorted(chosen)}
    if b"Upload-Concat" in fields or b"Upload-Defer-Length" in fields:
        fields.pop(draw(of(b"Upload-Length", b"Trailer")), None)
    method = draw(of(b"POST", b"POST", b"POST", b"PATCH", b"HEAD", b"DELETE", b"OPTIONS", b"GET"))
    target = draw(of(b"/tus", b"/tus", b"/tus/", b"/tus/" + ID, b"/tus?expires_at=1&a=%ff", b"/tus?sha256=x"))
    body = draw(of(b"", b"hello", b"hello", b"hello world"))
    return Message(build(method, target, list(fields.items()), body, host=draw(HOST)), draw(ENDING), bodies=(body,))


@st.composite
def draft(draw: Draw) -> Message:
    """Structured Fields of the draft."""
    chosen = draw(st.sets(st.sampled_from(sorted(DRAFT_FIELDS)), min_size=1, max_size=4))
    fields = SOUND_DRAFT | {name: draw(DRAFT_FIELDS[name]) for name in sorted(chosen)}
    method = draw(of(b"POST", b"PUT", b"PUT", b"PATCH", b"HEAD", b"DELETE", b"OPTIONS"))
    target = {b"POST": b"/files", b"PUT": b"/files/" + draw(of(b"d", b"%ff", b"%2f", b"\xff"))}.get(
        method, b"/uploads/" + ID
    )
    body = draw(of(b"", b"hello", b"hello"))
    return Message(build(method, target, list(fields.items()), body, host=draw(HOST)), draw(ENDING), bodies=(body,))


JSON: Final = st.one_of(
    of(
        *(
            b"", b"{", b"{}", b"[]", b"null", b"NaN", b'{"metadata": NaN}', b'{"metadata": {"a": NaN}}',
            b'{"metadata": {"a": 1e999}}', b"[" * 50000, b'{"a":' * 9000,
        )
    ),
    of(
        *(
            b'{"filename": "\\ud800"}', b'{"\\ud800": 1}', b'{"metadata": {"\\ud800": "\\udfff"}}',
            b'{"filename": "a", "filename": "b"}', b'{"filename": 1}',
        )
    ),
    of(
        *(
            b'{"filename": ""}', b'{"filename": "\\u0000"}', b'{"metadata": {"a": ["b", 1]}}', b'{"metadata": []}',
            b'{"metadata": {"a": {}}}', b'{"expires_at": 1}',
        )
    ),
    of(
        b'{"metadata": {"a": ' + b"9" * 5000 + b"}}", b'{"filename": "' + b"x" * 60000 + b'"}', b"\xff\xfe{}",
        b"\xef\xbb\xbf{}", "{}".encode("utf-16"), b"{}{}", b'{"a": 1,}',
    ),
    of(
        b'{"metadata": {' + b",".join(b'"k%d": "v"' % at for at in range(3000)) + b"}}",
        b'{"metadata": {"a": [' + b'"",' * 20000 + b'""]}}', b"x" * 70000,
    ),
    TIME.map(lambda time: b'{"expires_at": "' + time + b'"}'),
    BYTES,
)


@st.composite
def patches(draw: Draw) -> Message:
    """JSON bodies of PATCH /files/{id}; the id is put in when a file is there."""
    kind = draw(
        of(
            *(b"application/merge-patch+json",) * 4, b"application/json", b"text/plain", b"",
            b"application/json; charset=utf-7", b"\xff",
        )
    )
    return Message(
        build(
            b"PATCH", b"/files/" + draw(of(b"FILE", b"FILE", b"FILE", ID)),
            [(b"Content-Type", kind)],
            draw(JSON) or b" ",
        ),
        draw(ENDING),
    )


CURSOR: Final = st.one_of(
    of(
        *(
            b"", b"=", b"AAAA", b"W10=", b"W10", b"bnVsbA", b"\xff", b"%ff", b"A" * 7000, b"W1td", b"+/+/",
            b"WyJhIiwxLCJiIl0",
        )
    ),
    st.lists(
        of(b'"0"', b"1", b"null", b"[]", b'"\\ud800"', b"9" * 30, b"1e400", b"NaN", b'"\\u0000"', b"true", b"[" * 2000),
        max_size=4,
    ).map(lambda members: base64.urlsafe_b64encode(b"[" + b",".join(members) + b"]").rstrip(b"=")),
)
QUERY: Final[dict[bytes, st.SearchStrategy[bytes]]] = {
    b"limit": st.one_of(of(*(b"1",) * 9), NUMBER), b"cursor": CURSOR, b"q": TEXT,
    b"filename": st.one_of(TEXT, of(b"*" * 250, b"[" * 100, b"[a-", b"[!]", b"*a" * 120, b"?" * 255, b"%00", b"[%ff]")),
    b"media_type": st.one_of(TEXT, of(b"*/*", b"image/*", b"[")), b"since": TIME, b"until": TIME,
    b"sort": of(b"created_at", b"size", b"filename", b"id", b"", b"size;--", b"%ff"),
    b"order": of(b"asc", b"desc", b"", b"ASC"), b"x": TEXT, b"download": TEXT, b"signature": TEXT, b"expires": NUMBER,
}


@st.composite
def listings(draw: Draw) -> Message:
    """Queries of listings, of what leads to contents, and of a PUT."""
    names = draw(st.lists(st.sampled_from(sorted(QUERY)), max_size=4))
    query = b"&".join(name + draw(of(b"=", b"=", b"=", b"")) + draw(QUERY[name]).replace(b" ", b"+") for name in names)
    target = draw(of(*(b"/files",) * 5, b"/files/latest", b"/files/FILE/content", b"/media/FILE/x", b"/files/q"))
    if target == b"/files/q":
        return Message(build(b"PUT", target + b"?" + query, [], b"hello"), bodies=(b"hello",))
    return Message(build(draw(of(b"GET", b"GET", b"HEAD")), target + b"?" + query, host=draw(HOST)))


CONDITION: Final[dict[bytes, st.SearchStrategy[bytes]]] = {
    b"Range": st.one_of(
        of(
            *(
                b"bytes=0-", b"bytes=-1", b"bytes=-0", b"bytes=1-0", b"bytes=0-0,2-2", b"bytes=0-,0-", b"bytes=",
                b"bytes=-", b"bytes=" + b"0-," * 9000,
            )
        ),
        of(
            b"bytes=" + b"9" * 9000 + b"-", b"bytes=0-" + b"9" * 400, b"items=0-1", b"BYTES=0-0", b"bytes 0-1",
            b"bytes=0-0, 0-0 ,,1-1", b"bytes=--1", b"bytes=0x0-1",
        ),
        VALUE,
    ),
    b"If-Range": st.one_of(of(b'"x"', b'W/"x"', b"x", b"Thu, 01 Jan 1970 00:00:00 GMT"), VALUE),
    b"If-Match": st.one_of(
        of(b"*", b'"x"', b'W/"x"', b'"x', b'"x",' * 9000, b"," * 60000, b'"' * 60000, b'W/"' * 20000), VALUE
    ),
    b"If-None-Match": st.one_of(
        of(b"*", b'"x"', b'W/"x"', b'"x', b'"x",' * 9000, b" " * 60000 + b'"', b'"\xff"'), VALUE
    ),
    b"If-Modified-Since": st.one_of(
        of(
            b"Thu, 01 Jan 1970 00:00:00 GMT", b"Sunday, 06-Nov-94 08:49:37 GMT", b"Sun Nov  6 08:49:37 1994",
            b"Xxx, 99 Foo 0000",
        ),
        VALUE,
    ),
    b"If-Unmodified-Since": st.one_of(
        of(b"Fri, 31 Dec 9999 23:59:60 GMT", b"Thu, 30 Feb 2023 00:00:00 GMT", b"Sat, 01 Jan 0000 00:00:00 GMT"), VALUE
    ),
    b"Accept": st.one_of(
        of(
            b"text/plain;q=0.0000", b"text/plain;q=2", b"*/*;q=" + b"0" * 60000, b"," * 60000, b";" * 60000,
            b"text/plain;q=0." + b"9" * 60000,
        ),
        VALUE,
    ),
}


@st.composite
def conditions(draw: Draw) -> Message:
    """Ranges, conditions and preferences, of a file that is there."""
    names = draw(st.sets(st.sampled_from(sorted(CONDITION)), min_size=1, max_size=3))
    fields = [(name, draw(CONDITION[name])) for name in sorted(names)]
    target = draw(
        of(b"/media/FILE/x", b"/media/FILE/x", b"/media/FILE/x?download", b"/files/FILE", b"/media/" + ID + b"/x")
    )
    return Message(build(draw(of(b"GET", b"GET", b"HEAD", b"OPTIONS")), target, fields, host=draw(HOST)))


CLAIM: Final[dict[bytes, st.SearchStrategy[bytes]]] = {
    b"Idempotency-Key": st.one_of(
        of(
            b"k", b'"k"', b'"k', b'""', b"", b"k" * 255, b"k" * 256, b'"k";a=1', b'"\\x"', b"\xff",
            b'"' + b"k" * 60000 + b'"',
        ),
        VALUE,
    ),
    b"Repr-Digest": DIGEST, b"Content-Digest": DIGEST,
    b"Expect": of(b"100-continue", b"100-Continue", b"200-ok", b"", b"100-continue, 100-continue", b"\xff"),
    b"Content-Encoding": st.one_of(
        of(b"gzip", b"deflate", b"br", b"identity", b"IDENTITY", b"identity, gzip", b"zstd", b"compress"), VALUE
    ),
    b"Authorization": st.one_of(
        of(
            b"Bearer", b"Bearer ", b"bearer x", b"Basic eDp5", b"Bearer \xff", b"Bearer " + b"x" * 60000, b"x", b"",
            b"Bearer x, Bearer y",
        ),
        VALUE,
    ),
    b"Content-Type": st.one_of(
        of(
            b"a/b", b"a", b"a/b;c", b"a/b;" + b";" * 60000, b'a/b;c="' + b"\\" * 60000, b"multipart/form-data",
            b"text/html", b"*/*",
        ),
        VALUE,
    ),
    b"Content-Disposition": DISPOSITION, b"Content-Range": VALUE,
    b"Origin": of(
        b"null", b"http://localhost", b"http://evil.example", b"\xff", b"localhost", b"http://\xff@localhost"
    ),
    b"X-Forwarded-Host": VALUE, b"X-Forwarded-Proto": VALUE,
    b"Connection": of(b"close", b"keep-alive", b"close, keep-alive", b"Upgrade", b"Content-Length", b"\xff"),
    b"Upgrade": of(b"websocket", b"h2c", b"\xff", b"TLS/1.0"),
}


@st.composite
def claims(draw: Draw) -> Message:
    """What else a client may say of a body."""
    names = draw(st.sets(st.sampled_from(sorted(CLAIM)), min_size=1, max_size=3))
    fields = [(name, draw(CLAIM[name])) for name in sorted(names)]
    method = draw(of(b"PUT", b"PUT", b"PUT", b"POST", b"GET"))
    target = b"/files/" + draw(TEXT).replace(b" ", b"%20") if method == b"PUT" else b"/files"
    body = draw(BYTES)
    return Message(build(method, target, fields, body, host=draw(HOST)), draw(ENDING), bodies=(body,))


AREAS: Final[dict[str, st.SearchStrategy[Message]]] = {
    "heads": heads(), "floods": floods(), "chunked": chunked(), "smuggled": smuggled(), "early-ends": early_ends(),
    "multiparts": multiparts(), "tiny-parts": tiny_parts(), "tus": tus(), "draft": draft(), "patches": patches(),
    "listings": listings(), "conditions": conditions(), "claims": claims(),
}
