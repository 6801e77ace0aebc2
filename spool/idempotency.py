"""Idempotency-Key: a retry is told what the first request was told (draft-ietf-httpapi-idempotency-key-header-07)."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from spool.errors import KeyInUse, Rejected
from spool.model import Answer
from spool.turns import Turns

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from spool import counting
    from spool.ports import Answers, Clock

LIFETIME: Final = timedelta(hours=24)
"""How long an answer is remembered."""


class Idempotency:
    """Which keys are in use now, and what was answered under them before."""

    def __init__(self, answers: Answers, clock: Clock, turns: counting.Turns | None = None) -> None:
        """`turns` are those of all processes, if there are several."""
        self._answers = answers
        self._clock = clock
        self._turns = turns or Turns()

    async def running(self, answer: Answer) -> AbstractContextManager[object]:
        """The answer's key is in use, until the end of the `with`. Raises KeyInUse if it is already."""
        let_go = await self._turns.try_take(f"key {len(answer.owner)} {answer.owner} {answer.idempotency_key}")
        if let_go is None:
            raise KeyInUse("a request with this Idempotency-Key is still running")
        held = ExitStack()
        held.callback(let_go)
        return held

    def draft(self, owner: str, idempotency_key: str, fingerprint: str) -> Answer:
        """The answer to be, without its files."""
        return Answer(owner, idempotency_key, fingerprint, self._clock())

    async def earlier(self, draft: Answer) -> Answer | None:
        """What was answered under this key in the last 24 hours. Raises Rejected if that was to another request."""
        since = draft.created_at - LIFETIME
        earlier = await self._answers.answer(draft.owner, draft.idempotency_key, since)
        if earlier is not None and earlier.fingerprint != draft.fingerprint:
            raise Rejected("this Idempotency-Key was used for a different request")
        return earlier

    async def forget(self) -> int:
        """Answers older than 24 hours are gone; returns how many were."""
        return await self._answers.forget(self._clock() - LIFETIME)
