"""Whether a server keeps what its clients were promised, when it starts on what a cut has left."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any

from tests.crash.workload import (
    Connection,
    Content,
    Request,
    Resumable,
    Stored,
    ask_offset,
    bring,
    concatenate,
    is_complete,
    send,
)
from tests.process import eventually

if TYPE_CHECKING:
    from tests.crash.workload import History
    from tests.process import Server

Record = dict[str, Any]
GONE = (404, 410)


class Verdict:
    """Judges a running server after a cut at `cut`. What is found wrong it raises as AssertionError."""

    def __init__(self, server: Server, history: History, cut: int) -> None:
        self._server = server
        self._history = history
        self._cut = cut
        self._listings = [listing for listing in history.listings if listing.told <= cut]
        self._connection = Connection(server.port, lambda: cut)
        self.counts: Counter[str] = Counter()

    def judge(self) -> Counter[str]:
        """How much was looked at, of each kind."""
        try:
            for upload in self._history.resumables:
                self._check_resumable(upload)
            self._check_files()
            self._check_retries()
            eventually(lambda: not unaccounted(self._server), 20)
        finally:
            self._connection.close()
        self._server.kill()
        with closing(sqlite3.connect(self._server.dir / "index.db")) as index:
            assert index.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return self.counts

    def _check_files(self) -> None:
        records = self._server.files()
        listed = {record["filename"]: record for record in records}
        assert len(listed) == len(records), "something is listed twice"
        for request in self._history.requests:
            self._check_request(request, listed)
        names = {file.content.name for request in self._history.requests for file in request.files}
        assert set(listed) <= names, f"listed, but nobody sent it: {set(listed) - names}"
        self._check_bytes(listed)

    def _check_request(self, request: Request, listed: dict[str, Record]) -> None:
        there = [file.content.name in listed for file in request.files if not file.removal.possible(self._cut)]
        assert all(there) or not any(there), f"half a request is there: {request}"
        for file in request.files:
            name = file.content.name
            if name in listed:
                assert request.deed.possible(self._cut), f"listed, but not all of it was sent: {request}"
                assert not self._must_be_gone(file, request), f"came back: {file}"
                self._check_title(file, listed[name])
                self.counts["listed"] += 1
            elif request.deed.certain(self._cut):
                assert file.removal.possible(self._cut), f"acknowledged, but lost: {file}"
            else:
                seen = any(name in listing.names for listing in self._listings)
                assert not seen or file.removal.possible(self._cut), f"was listed, but lost: {file}"
            self.counts["acknowledged"] += request.deed.certain(self._cut)
            self.counts["deleted"] += file.removal.certain(self._cut)

    def _must_be_gone(self, file: Stored, request: Request) -> bool:
        """Its deletion was acknowledged, or another client saw that it was no longer there."""
        name, stored = file.content.name, request.deed.told
        return file.removal.certain(self._cut) or any(
            stored is not None and stored <= listing.began and name not in listing.names for listing in self._listings
        )

    def _check_title(self, file: Stored, record: Record) -> None:
        """The record has the last title that was acknowledged, or one that was on its way."""
        allowed = [None]
        for title, deed in file.titles:
            if deed.certain(self._cut):
                allowed = [title]
                self.counts["changed"] += 1
            elif deed.possible(self._cut):
                allowed.append(title)
        assert record["metadata"].get("title") in allowed, f"not a title of {file}: {record}"

    def _check_bytes(self, listed: dict[str, Record]) -> None:
        contents = {file.content.name: file.content for request in self._history.requests for file in request.files}
        for name, record in listed.items():
            content = contents[name]
            assert (record["size"], record["sha256"]) == (len(content.data), content.sha256), record
            self._check_download(record["id"], content)

    def _check_download(self, id: str, content: Content) -> None:
        connection = HTTPConnection("127.0.0.1", self._server.port, timeout=20)
        with closing(connection):
            connection.request("GET", f"/media/{id}/x")
            response = connection.getresponse()
            data = response.read()
        assert response.status == 200, f"{response.status} for the bytes of {content}"
        assert data == content.data, f"not the bytes that were sent: {content}"

    def _check_resumable(self, upload: Resumable) -> None:
        """It stands where its client was told, or further, with the right bytes: they are brought to their end."""
        if not upload.creation.certain(self._cut):
            return  # nobody knows its address
        answer = ask_offset(self._connection, upload)
        if answer.status in GONE:
            removals = (upload.removal, upload.request.files[0].removal)  # of the upload, or of its file
            assert any(deed.possible(self._cut) for deed in removals), f"lost: {upload}"
            return
        assert answer.status in (200, 204), f"{answer.status} for {upload}"
        assert not upload.removal.certain(self._cut), f"came back: {upload}"
        told = max((offset for at, offset in upload.offsets if at <= self._cut), default=0)
        offset = int(answer.headers["upload-offset"])
        assert told <= offset <= len(upload.data), f"stands at {offset} after {told} was told: {upload}"
        self.counts["resumable"] += 1
        self._finish(upload, offset, complete=is_complete(upload, answer))

    def _finish(self, upload: Resumable, offset: int, *, complete: bool) -> None:
        [file] = upload.request.files
        if upload.partial:
            if offset < len(upload.data):
                bring(self._connection, upload, offset, upload.data[offset:])
            proof = Request([Stored(Content(f"proof-{file.content.name}", upload.data))])
            concatenate(self._connection, proof, [upload.path])
            self._take_away(str(proof.files[0].id), proof.files[0].content)
        elif not complete:
            names = {record["filename"] for record in self._server.files()}
            assert file.content.name not in names, f"listed, but not complete: {upload}"
            answer = bring(self._connection, upload, offset, upload.data[offset:])
            assert is_complete(upload, answer), answer
            self._take_away(upload.path.rpartition("/")[2], file.content)
            self.counts["resumed"] += 1

    def _take_away(self, id: str, content: Content) -> None:
        """The file that this verdict has made is right, and gone again: it would not be there without."""
        self._check_download(id, content)
        assert self._connection.ask("DELETE", f"/files/{id}").status == 204

    def _check_retries(self) -> None:
        """A retry of a request is told what the first was told, and the files are there once."""
        for request in self._history.requests:
            if request.key is not None and request.deed.possible(self._cut):
                answer = send(self._connection, request)
                if request.deed.certain(self._cut):
                    assert [answer.json["id"]] == [file.id for file in request.files], f"stored again: {request}"
                self.counts["retried"] += 1
                times = Counter(record["filename"] for record in self._server.files())
                assert [times[file.content.name] for file in request.files] == [1], f"stored again: {request}"


def unaccounted(server: Server) -> set[str]:
    """Files on the disk that neither a file nor an unfinished upload needs."""
    sql = """SELECT key FROM files WHERE body IS NULL UNION SELECT key FROM hidden WHERE body IS NULL
        UNION SELECT key FROM uploads WHERE state != 'finished'"""
    with closing(sqlite3.connect(f"file:{server.dir}/index.db?mode=ro", uri=True)) as index:
        keys = {key for (key,) in index.execute(sql)}
    return set(server.blobs()) - keys
