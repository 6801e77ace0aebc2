"""Commits, deletes, undoing, expiry and sweeps of files that share blobs, interleaved verb by verb in every way."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from spool.admission import Admission, Capacity
from spool.catalog import Catalog
from spool.errors import NotFound
from spool.ingest import Ingest
from spool.model import By, FileId, FileQuery, Intent, Key, Principal, Resumable, Staged, Terms, Upload
from spool.policy import Policy
from spool.staging import new_id
from spool.store import open_index
from spool.store.local import open_local
from spool.work import expiry, gc
from tests.process import EFFORT

from .gates import Gated, Gatekeeper

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Iterator

    from spool.hiding import Hidden
    from spool.model import File
    from spool.store import LocalStore, SqliteIndex

RUNS = 50 * EFFORT
STEPS = 30
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
EVER = datetime.max.replace(tzinfo=UTC)
ADA = Principal("ada", frozenset({"upload"}))
CONTENTS = {"empty": b"", "one": b"one", "other": b"other", "large": bytes(70_000)}
"""The last is too large to be kept in memory until its commit."""
INLINE_MAX = 3
SHA256 = {hashlib.sha256(content).hexdigest(): content for content in CONTENTS.values()}


class Sniffer:
    async def sniff(self, head: bytes) -> str:
        return "text/plain" if head else "application/x-empty"


class World:
    """One store and one index, used by all runs, and the loop in which they live."""

    def __init__(self, directory: Path, *, nameless: bool) -> None:
        self.runner = asyncio.Runner()
        self.blobs: LocalStore = self.run(open_local(directory, nameless=nameless))
        self.index: SqliteIndex = self.run(open_index(directory))
        self.choices = 0
        """How often one of several calls that waited was let through."""

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(work)

    def close(self) -> None:
        self.run(self.blobs.aclose())
        self.run(self.index.aclose())
        self.runner.close()


class Races(RuleBasedStateMachine):
    """Each rule starts a task, or lets one of the waiting calls through."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.now = NOON
        self.gates = Gatekeeper()
        blobs: Any = Gated(world.blobs, self.gates)
        index: Any = Gated(world.index, self.gates)
        self.blobs, self.index = blobs, index
        self.ingest, self.inline = self._make_ingest(0), self._make_ingest(INLINE_MAX)
        self.catalog = Catalog(blobs, index, lambda: self.now)
        self.tasks: list[asyncio.Task[None]] = []
        self.kept: dict[FileId, File] = {}
        """Acknowledged, and nobody has asked for it to go."""
        self.going: set[FileId] = set()
        self.gone: set[FileId] = set()
        self.hidden: dict[FileId, Hidden] = {}
        """Acknowledged as deleted with a grace, which nobody has asked to end."""
        self.hid = False
        self.names = count()

    def _make_ingest(self, inline_max: int) -> Ingest:
        return Ingest(
            blobs=self.blobs,
            files=self.index,
            inventory=self.index,
            sniffer=Sniffer(),
            policy=Policy(2**20),
            admission=Admission(
                Capacity(1000, 0), self.world.blobs.free, self.world.index.usage, self.world.index.grant_usage
            ),
            clock=lambda: self.now,
            inline_max=inline_max,
        )

    async def _active_keys(self) -> frozenset[Key]:
        return self._active()

    def _active(self) -> frozenset[Key]:
        return self.ingest.active | self.inline.active

    async def _start(self, work: Coroutine[Any, Any, None]) -> None:
        self.gates.open = False
        self.tasks.append(asyncio.get_running_loop().create_task(work))
        await self.gates.settle()
        self.gates.open = True

    @rule(
        names=st.lists(st.sampled_from([*CONTENTS]), min_size=1, max_size=2),
        ttl=st.sampled_from([None, None, 1]),
        inline=st.booleans(),
    )
    def commit(self, names: list[str], ttl: int | None, inline: bool) -> None:  # noqa: FBT001
        ingest = self.inline if inline else self.ingest

        async def run() -> None:
            expires_at = None if ttl is None else self.now + timedelta(minutes=ttl)
            uploads = []
            for name in names:
                intent = Intent(f"{next(self.names)}", expires_at=expires_at)
                with await ingest.admit(ADA, None) as reservation:
                    uploads.append(await ingest.receive(intent, ADA, _body(CONTENTS[name]), reservation))
            await self._start(self._commit(ingest, uploads))

        self.world.run(run())

    async def _commit(self, ingest: Ingest, uploads: list[Upload]) -> None:
        for file in await ingest.commit(uploads):
            if file.expires_at is None or file.expires_at > self.now:
                self.kept[file.id] = file

    @rule(name=st.sampled_from([*CONTENTS]))
    def finish(self, name: str) -> None:
        async def run() -> None:
            upload, row = await self._stage(CONTENTS[name])
            await self._start(self._finish(upload, row))

        self.world.run(run())

    async def _stage(self, content: bytes) -> tuple[Upload, Resumable]:
        id = new_id(self.now)  # noqa: A001
        key = Key(id)
        writer = await self.world.blobs.writer(key, Staged(0))
        await writer.write([content])
        staged = await writer.sync()
        await writer.aclose()
        intent, digest = Intent("resumed", len(content)), {"sha-256": hashlib.sha256(content).digest()}
        row = Resumable(
            id=id,
            key=key,
            owner="ada",
            dialect="tus",
            intent=intent,
            notes={},
            partial=False,
            created_at=self.now,
            expires_at=EVER,
            staged=staged,
            state="complete",
            epoch=0,
            media_type="text/plain",
            file_id=None,
        )
        await self.world.index.add_upload(row)
        return Upload(id, key, "ada", intent, Terms(2**20, None), staged, "text/plain", digest), row

    async def _finish(self, upload: Upload, row: Resumable) -> None:
        file = await self.ingest.finish(upload, row)
        self.kept[file.id] = file

    @rule(number=st.integers(0, 9))
    def delete(self, number: int) -> None:
        ids = list(self.kept)
        if not ids:
            return
        id = ids[number % len(ids)]  # noqa: A001
        self.kept.pop(id)
        self.going.add(id)
        self.world.run(self._start(self._delete(id)))

    async def _delete(self, id: FileId) -> None:
        try:
            await self.catalog.delete(id, None)
        except NotFound:  # it had expired, and the sweep was there first
            return
        finally:
            self.gone.add(id)

    @rule(number=st.integers(0, 9))
    def hide(self, number: int) -> None:
        if ids := list(self.kept):
            self.hid = True
            id = ids[number % len(ids)]  # noqa: A001
            self.kept.pop(id)
            self.world.run(self._start(self._hide(id)))

    async def _hide(self, id: FileId) -> None:
        try:
            hidden = await self.catalog.hide(id, 2 * MINUTE, By("ada", "http", self.now))
        except NotFound:  # it had expired
            return
        if hidden.until > self.now:
            self.hidden[id] = hidden

    @rule(number=st.integers(0, 9), brings_back=st.booleans())
    def undo(self, number: int, brings_back: bool) -> None:  # noqa: FBT001
        if ids := list(self.hidden):
            hidden = self.hidden.pop(ids[number % len(ids)])
            self.world.run(self._start(self._undo(hidden) if brings_back else self._delete(hidden.file.id)))

    async def _undo(self, hidden: Hidden) -> None:
        by = By("ada", "http", self.now)
        try:
            file = await self.catalog.restore(hidden.file.id, by)
        except NotFound:
            assert hidden.until <= self.now
            return
        assert file == hidden.file
        if file.expires_at is None or file.expires_at > self.now:
            self.kept[file.id] = file

    @rule(expiry=st.booleans())
    def clean(self, expiry: bool) -> None:  # noqa: FBT001
        if expiry:
            self._begin_expiry()
        else:
            self.world.run(self._start(self._sweep()))

    def _begin_expiry(self) -> None:
        self.now += MINUTE
        for id, file in list(self.kept.items()):  # noqa: A001
            if file.expires_at is not None and file.expires_at <= self.now:
                self.going.add(self.kept.pop(id).id)
        for id, hidden in list(self.hidden.items()):  # noqa: A001
            if hidden.until <= self.now:
                del self.hidden[id]
        self.world.run(self._start(self._expire()))

    async def _expire(self) -> None:
        await expiry.run_once(self.catalog, self.index, lambda: self.now)

    async def _sweep(self) -> None:
        await gc.run_once(self.blobs, self.index, self._active_keys, EVER)

    # No rule has a precondition, which would make what is drawn depend on how fast threads are.
    @rule(numbers=st.lists(st.integers(0, 11), min_size=3, max_size=6))
    def go_on(self, numbers: list[int]) -> None:
        for number in numbers:
            self._go_on(number)

    @rule(numbers=st.lists(st.integers(0, 11), min_size=1, max_size=3))
    def go_on_a_little(self, numbers: list[int]) -> None:
        for number in numbers:
            self._go_on(number)

    def _go_on(self, number: int) -> None:
        if not self.gates.waiting:
            return
        self.world.choices += len(self.gates.waiting) > 1
        self.world.run(self._let_through(number))
        self.world.run(self._check())

    async def _let_through(self, number: int) -> None:
        self.gates.open = False
        await self.gates.let_through(number)
        self.gates.open = True

    async def _check(self) -> None:
        kept, gone = set(self.kept), set(self.gone)  # what is told while we look is not looked for
        listed = {file.id: file for file in (await self.world.index.files(FileQuery(limit=1000))).items}
        for file in listed.values():
            assert await self._content(file) == SHA256[file.sha256], f"{file.filename} has lost its bytes"
        assert kept <= listed.keys()
        assert not gone & listed.keys()
        hidden = {each.file.id: each for each in await self.world.index.hidden(self.now, 1000)}
        assert self.hidden.keys() <= hidden.keys()
        for each in [each for each in hidden.values() if not each.file.inline]:  # of those a row with its bytes moves
            assert await self._content(each.file) == SHA256[each.file.sha256], f"{each.file.filename}: bytes lost"
        for task in self.tasks:
            if task.done():
                task.result()

    async def _content(self, file: File) -> bytes:
        if file.inline:
            return await self.world.index.body(file.id)
        with await self.world.blobs.open(file.key) as blob:
            return blob.read()

    def teardown(self) -> None:
        try:
            self.world.run(self._end())
        finally:
            self.world.run(self._clear())

    async def _end(self) -> None:
        while self.gates.waiting:
            await self._let_through(0)
        await asyncio.gather(*self.tasks)
        await self._check()
        await self._sweep()
        files = [*(await self.world.index.files(FileQuery(limit=1000))).items]
        files += [each.file for each in await self.world.index.hidden(NOON, 1000)]
        on_disk = Counter([key async for key, *_ in self.world.blobs.keys("")])
        blobs = [file for file in files if not file.inline]
        assert on_disk == Counter({file.key for file in blobs}), "the sweep left bytes without a record"
        # What comes back shares with nobody who came meanwhile.
        assert self.hid or len(on_disk) == len({file.sha256 for file in blobs}), "equal bytes are kept twice"
        assert not self._active()

    async def _clear(self) -> None:
        for file in (await self.world.index.files(FileQuery(limit=1000))).items:
            await self.world.index.remove(file.id)
        await self.world.index.end_hidden(EVER, 1000)
        for upload in await self.world.index.stale(EVER, 1000):
            await self.world.index.drop(upload.id)
        await gc.run_once(self.world.blobs, self.world.index, gc.nobody, EVER)


async def _body(content: bytes) -> AsyncIterator[bytes]:
    if content:
        yield content


@pytest.fixture(params=["nameless", "named"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    memory = Path("/dev/shm")  # where a sync costs nothing
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as directory:
        world = World(Path(directory), nameless=request.param == "nameless")
        yield world
        world.close()


def test_files_that_share_a_blob_never_harm_each_other(world: World) -> None:
    run_state_machine_as_test(
        lambda: Races(world),
        settings=settings(
            max_examples=RUNS,
            stateful_step_count=STEPS,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
    print(f"\n{RUNS} runs, {world.choices} choices among calls that waited")  # noqa: T201  # the number is worth reading
