"""Drives the dialects of resumable uploads: head to command, command to Resumption, result to head."""

from __future__ import annotations

import logging
from contextlib import closing, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from aiohttp import HttpVersion11, web
from aiojobs.aiohttp import atomic

from spool.errors import BadRequest, CompletedUpload, Forbidden, NotFound, SpoolError
from spool.metrics import PROTOCOLS
from spool.model import UploadId
from spool.protocol.disposition import clean_filename
from spool.protocol.resumable import Append, Cancel, Create, Head, Inspect, Limits, Result
from spool.protocol.rufh import Rufh
from spool.protocol.tus import Tus
from spool.turn import Turn, Verification
from spool.web.auth import PRINCIPAL
from spool.web.body import Body
from spool.web.connection import parse_trailers
from spool.web.fields import Fields
from spool.web.problems import problem_response
from spool.web.records import record
from spool.web.site import SITE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from spool.model import File, Intent, Resumable
    from spool.protocol.resumable import Checksum, Command, Dialect, ResponseHead
    from spool.web.auth import Handler
    from spool.web.site import Site

_TURN: Final = web.RequestKey("turn", Turn)

_log = logging.getLogger(__name__)


class _Work(NamedTuple):
    """What a turn is taken for."""

    run: Callable[[], Awaitable[None]]


_WORK: Final = web.RequestKey("work", _Work)


def make_dialects(max_size: int, max_age: int) -> tuple[Dialect, Dialect]:
    """tus, and the IETF draft; they tell their clients the largest file, and the seconds that an upload is kept."""
    limits = Limits(max_size, max_age)
    return Tus(limits), Rufh(limits)


def tus(request: web.Request) -> Dialect:
    """tus, as it is for whoever asks: a guest is told of the grant's largest file, and not offered concatenation."""
    site, who = request.app[SITE], request.get(PRINCIPAL)
    if who is None or who.grant is None:
        return site.tus
    limits = Limits(site.policy.under(who.grant).max_file_size, int(site.limits.upload_ttl.total_seconds()))
    return Tus(limits, concatenation=False)


def rufh(request: web.Request) -> Dialect:
    """The IETF draft, likewise."""
    site, who = request.app[SITE], request.get(PRINCIPAL)
    if who is None or who.grant is None:
        return site.rufh
    return Rufh(Limits(site.policy.under(who.grant).max_file_size, int(site.limits.upload_ttl.total_seconds())))


def drive(choose: Callable[[web.Request], Dialect], place: str, otherwise: Handler) -> Handler:
    """A handler that answers the dialect's requests; whatever is not of the dialect goes to `otherwise`.

    `place` is the address under which the dialect's uploads are, such as "/tus". For a guest it is below the grant's.
    """

    async def handler(request: web.Request) -> web.StreamResponse:
        dialect = choose(request)
        within = f"/g/{request.match_info['secret']}" if "secret" in request.match_info else ""
        driver = _Driver(request, dialect, within + place)
        try:
            command = dialect.parse(driver.head, driver.id)
            if command is None:
                return await otherwise(request)
            head = dialect.reply(command, await driver.carry_out(command))
        except SpoolError as error:
            return problem_response(error, request, dialect.refuse(error, driver.result()))
        return driver.answer(head)

    return handler


async def follow(request: web.Request) -> web.StreamResponse:
    """`GET` of an upload: the way to the file that it became. Raises NotFound until it has become one."""
    site = request.app[SITE]
    upload = await site.index.upload(UploadId(request.match_info["id"]))
    if upload.file_id is None or upload.owner != request[PRINCIPAL].name:
        raise NotFound("there is no such upload, or it is not finished")
    file = await site.catalog.file(upload.file_id)
    return web.Response(status=302, headers={"Location": site.addresses.content(request, file)})


async def not_there(_request: web.Request) -> web.StreamResponse:
    """For what a dialect's address does not take."""
    raise NotFound("there is nothing at this address for such a request")


class _Driver:
    """One request of a dialect."""

    def __init__(self, request: web.Request, dialect: Dialect, place: str) -> None:
        self._request = request
        self._dialect = dialect
        self._place = place
        self._site: Site = request.app[SITE]
        self._resumption = self._site.resumption
        self._upload: Resumable | None = None
        self._file: File | None = None
        self.id = UploadId(request.match_info["id"]) if "id" in request.match_info else None
        self.head = _head(request)

    async def carry_out(self, command: Command) -> Result:
        match command:
            case Create():
                await self._create(command)
            case Append():
                await self._receive(command)
            case Inspect(id):
                await self._inspect(id)
            case Cancel(id):
                await self._cancel(id)
        return self.result()

    def result(self) -> Result:
        """What is known of the upload by now."""
        upload, file, addresses = self._upload, self._file, self._site.addresses
        guest = "secret" in self._request.match_info  # who may not read the file
        return Result(
            upload=upload,
            location=None if upload is None else f"{addresses.base(self._request)}{self._place}/{upload.id}",
            file=file,
            file_url=None if file is None or guest else addresses.record(self._request, file),
            content_url=None if file is None or guest else addresses.content(self._request, file),
            delete_url=None if file is None else addresses.deletion(self._request, file),
        )

    def answer(self, head: ResponseHead) -> web.Response:
        headers = dict(head.headers)
        if head.with_record and self._file is not None:
            return web.json_response(record(self._request, self._file), status=head.status, headers=headers)
        return web.Response(status=head.status, headers=headers)

    async def _create(self, command: Create) -> None:
        who, name = self._request[PRINCIPAL], self._dialect.name
        if who.grant is not None and (command.parts or command.partial):  # and the parts' addresses hold the secret
            raise Forbidden("an upload by a link is not made of others: send it as one")
        if command.parts:
            return await self._concatenate(command)
        intent = self._intent(command.intent)
        upload = await self._resumption.create(intent, who, name, command.notes, partial=command.partial)
        self._upload = upload
        await self._tell(location=self.result().location)
        if command.has_body or command.completes or upload.intent.size == 0:
            await self._receive(
                Append(
                    upload.id,
                    0,
                    completes=command.completes,
                    checksum=command.checksum,
                    checksum_follows=command.checksum_follows,
                )
            )
        return None

    def _intent(self, intent: Intent) -> Intent:
        """The intent with what the address says: a name where the dialect has none, and the query as metadata."""
        if not intent.filename:
            intent = replace(intent, filename=clean_filename(self._request.match_info.get("filename", "")))
        if not self._request.query:
            return intent
        fields = Fields(self._site.limits)
        for name, value in self._request.query.items():
            fields.add(name, value)
        return fields.apply([intent])[0]

    async def _concatenate(self, command: Create) -> None:
        who, name = self._request[PRINCIPAL], self._dialect.name
        ids = [self._part(address) for address in command.parts]
        parts = await self._resumption.partials(ids, who, name)
        intent = replace(command.intent, size=sum(part.staged.offset for part in parts))
        self._upload = await self._resumption.create(intent, who, name, command.notes)
        turn = await self._take(self._upload.id)
        try:
            self._file = await _run_turn(self._request, lambda: turn.absorb(parts))
        finally:
            self._note_turn()

    def _part(self, address: str) -> UploadId:
        """The id in an upload's address, absolute or not. Raises BadRequest."""
        place, _, name = address.strip().rpartition("/")
        if not place.endswith(self._place) or not name:
            raise BadRequest(f"{address[:200]!r} is not the address of an upload")
        return UploadId(name)

    async def _receive(self, command: Append) -> None:
        await self._take(command.id)
        try:
            self._file = await _run_turn(self._request, lambda: self._receive_body(command))
        finally:
            self._note_turn()

    async def _receive_body(self, command: Append) -> None:
        turn, declared = self._request[_TURN], self.head.content_length
        promised = turn.upload.intent.size is not None
        turn.expect_at(command.offset, 0)
        turn.expect(command.length)
        turn.expect_at(command.offset, declared or 0)
        if turn.upload.state != "open":
            if self.head.has_body:
                raise CompletedUpload("all bytes of this upload are here")
            return
        length, who = turn.upload.intent.size, self._request[PRINCIPAL]
        ahead = declared if length is None else length - command.offset
        body = Body(self._request, self._site.limits, self._site.limits.max_file_size)
        reservation = await self._site.ingest.admit(who, 0 if promised else ahead, files=0)  # its row counts as one
        turn.held.enter_context(reservation)
        turn.held.enter_context(self._site.guests.running(who, body.interrupt))
        turn.held.enter_context(closing(body))
        await turn.receive(
            body.chunks(),
            body.interrupt,
            completes=command.completes,
            verification=self._verification(command),
            reservation=reservation if length is None else None,
            progress=self._tell_offset,
        )

    def _verification(self, command: Append) -> Verification | None:
        checksum = command.checksum
        if checksum is not None:
            return Verification(frozenset({checksum.algorithm}), lambda digests: _check(checksum, digests))
        if not command.checksum_follows:
            return None

        def check(digests: Mapping[str, bytes]) -> None:
            following = self._dialect.parse_trailer(parse_trailers(self._request))
            if following is not None:
                _check(following, digests)

        return Verification(frozenset({"sha1", "sha256", "sha512", "md5"}), check)

    async def _inspect(self, id: UploadId) -> None:
        await self._take(id)
        self._file = await _run_turn(self._request, _nothing)
        self._note_turn()

    async def _cancel(self, id: UploadId) -> None:
        turn = await self._take(id)
        try:
            await self._resumption.give_up(id)
        finally:
            await turn.save()
        self._upload = None

    async def _take(self, id: UploadId) -> Turn:
        turn = await self._resumption.take(id, self._request[PRINCIPAL], self._dialect.name)
        self._request[_TURN] = turn
        self._upload = turn.upload
        return turn

    def _note_turn(self) -> None:
        self._upload = self._request[_TURN].upload
        if self._file is not None:
            self._upload = replace(self._upload, state="finished", file_id=self._file.id)

    async def _tell_offset(self, offset: int) -> None:
        await self._tell(offset=offset)

    async def _tell(self, *, location: str | None = None, offset: int | None = None) -> None:
        """Sends an interim response, if the client's dialect has one for this."""
        fields = self._dialect.interim(self.head, location=location, offset=offset)
        if fields is None or not self._site.interim_responses or self._request.version < HttpVersion11:
            return
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        writer = self._request.writer
        with suppress(ConnectionError):  # a client that has gone is noticed by its body
            await writer.write(f"HTTP/1.1 104 Upload Resumption Supported\r\n{lines}\r\n".encode("latin-1"))
        writer.output_size = 0


async def _run_turn(request: web.Request, work: Callable[[], Awaitable[None]]) -> File | None:
    """Does the work of a turn, saves what came of it, and finishes what is complete, whatever becomes of the client.

    A client that vanishes does not cancel it: the body then ends with an error, after the last byte that arrived.
    """
    request[_WORK] = _Work(work)
    outcome = await _guarded(request)
    if isinstance(outcome, SpoolError):
        raise outcome
    return outcome


@atomic
async def _guarded(request: web.Request) -> File | SpoolError | None:
    """Returns a refusal instead of raising it, for nobody may be left to whom it could be raised."""
    try:
        return await _take_turn(request)
    except SpoolError as error:
        who, offset = request[PRINCIPAL].name, request[_TURN].upload.staged.offset
        _log.info("upload.refused", {"owner": who, "bytes": offset, "reason": str(error)})
        request.app[SITE].metrics.ended(PROTOCOLS[request[_TURN].upload.dialect], error)
        return error


async def _take_turn(request: web.Request) -> File | None:
    turn, resumption = request[_TURN], request.app[SITE].resumption
    try:
        await request[_WORK].run()
    finally:
        await turn.save()
    upload = turn.upload
    if upload.partial or upload.state == "open":
        return None
    return await resumption.finish(upload)


async def _nothing() -> None:
    """The work of who only wants to know."""


def _check(checksum: Checksum, digests: Mapping[str, bytes]) -> None:
    if digests[checksum.algorithm] != checksum.digest:
        raise checksum.refusal(f"the {checksum.algorithm} of these bytes is not the one given")


def _head(request: web.Request) -> Head:
    headers = {name.lower(): ", ".join(request.headers.getall(name)) for name in request.headers}
    return Head(request.method, headers, request.content_length, request.can_read_body)
