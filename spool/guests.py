"""Guests: who comes by a grant, how they prove that they may, and how they are cut off when it ends."""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
from collections import OrderedDict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from spool.errors import Gone, NotFound, PassphraseRequired, RateLimited, SpoolError
from spool.model import Allowance, Principal
from spool.policy import MAX_PASSPHRASE, require_lasting
from spool.tokens import hash_secret, is_passphrase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from spool.model import Grant, GrantId
    from spool.ports import Clock
    from spool.rates import Counter
    from spool.sharing import Grants

    Interrupt = Callable[[Exception], None]

_log = logging.getLogger(__name__)

GUESSES: Final = 10
"""Pass phrases that are looked at in a minute, for one grant; the one that was right is known again without a look."""
_REMEMBERED: Final = 1024
"""Grants whose pass phrase is known again."""


class Guests:
    """Knows guests by the secret in the address, and their running uploads."""

    def __init__(self, grants: Grants, rates: Counter, clock: Clock, allowance: Allowance) -> None:
        """`allowance` is that of an owner for whom nothing else is set."""
        self._grants = grants
        self._rates = rates
        self._clock = clock
        self._allowance = allowance
        self._running: set[tuple[GrantId, Interrupt]] = set()
        self._looking = asyncio.Lock()
        self._key = secrets.token_bytes(32)
        self._proofs: OrderedDict[GrantId, bytes] = OrderedDict()

    async def guest(self, secret: str) -> Principal:
        """Who comes by the grant with this secret; whether they know its pass phrase is for `prove`.

        Raises NotFound if there is no such grant, Gone if it has ended.
        """
        grant = await self._grants.grant_of(hash_secret(secret))
        if grant is None:
            raise NotFound("there is no such link")
        require_lasting(grant, self._clock())
        allowance = self._allowance.under(grant.override)
        return Principal(grant.owner, frozenset({"upload"}), allowance, grant)

    async def prove(self, grant: Grant, passphrase: str | None) -> None:
        """Raises PassphraseRequired unless this is the grant's pass phrase, or it has none; RateLimited.

        One look takes long, so there is one at a time, and only so many for each grant in a minute.
        """
        if grant.passphrase is None:
            return
        if not passphrase:
            raise PassphraseRequired("this link asks for a pass phrase")
        data = passphrase.encode("utf-8", "surrogateescape")
        proof = hmac.digest(self._key, data, "sha256")
        if hmac.compare_digest(proof, self._proofs.get(grant.id, b"")):
            return
        if len(data) > MAX_PASSPHRASE or not await self._look(grant, grant.passphrase, passphrase):
            raise PassphraseRequired("this is not the pass phrase of this link")
        self._proofs[grant.id] = proof
        self._proofs.move_to_end(grant.id)
        while len(self._proofs) > _REMEMBERED:
            self._proofs.popitem(last=False)

    async def _look(self, grant: Grant, hash_: str, passphrase: str) -> bool:
        guesser = Principal(f"grant {grant.id} passphrase", frozenset(), Allowance(requests_per_minute=GUESSES))
        rate = await self._rates.count(guesser)
        if rate is not None and rate.exceeded:
            detail = f"a link takes {GUESSES} tries of its pass phrase a minute"
            raise RateLimited(detail, rate.reset, limit=GUESSES, window=60)
        # A client that vanishes does not end its look, and so must not let the next one begin.
        return await asyncio.shield(asyncio.ensure_future(self._look_alone(passphrase, hash_)))

    async def _look_alone(self, passphrase: str, hash_: str) -> bool:
        async with self._looking:
            return await asyncio.to_thread(is_passphrase, passphrase, hash_)

    @contextmanager
    def running(self, who: Principal, interrupt: Interrupt) -> Iterator[None]:
        """An upload of this principal is running; if it is a guest's, `interrupt` is told Gone when its grant ends."""
        if who.grant is None:
            yield
            return
        upload = (who.grant.id, interrupt)
        self._running.add(upload)
        try:
            yield
        finally:
            self._running.discard(upload)

    async def enforce(self) -> None:
        """The running uploads of grants that have ended are interrupted, whoever has ended these, and how."""
        for id in {id for id, _ in self._running}:  # noqa: A001 - `id` is the word of the design
            ending = await self._ending(id)
            if ending is not None:
                for interrupt in [interrupt for other, interrupt in self._running if other == id]:
                    interrupt(ending)

    async def watch(self) -> None:
        """Enforces every second: a grant may expire, or be revoked by another process, while uploads run by it."""
        while True:
            await asyncio.sleep(1)
            try:
                await self.enforce()
            except SpoolError as error:  # no commit gets past the index, which is asked again
                _log.warning("guests.unchecked", {"reason": str(error)})

    async def _ending(self, id: GrantId) -> Gone | None:
        try:
            require_lasting(await self._grants.grant(id), self._clock())
        except NotFound:
            return Gone("this link has ended")
        except Gone as error:
            return error
        return None
