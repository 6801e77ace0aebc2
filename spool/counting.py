"""Protocols of what is counted once, however many processes serve. As in `ports`, their docstrings are contracts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import Callable

    from spool.model import Principal


class Turns(Protocol):
    """Names that one request has at a time, in whichever process it is answered."""

    async def take(self, name: str, stop: Callable[[], None]) -> Callable[[], None]:
        """The caller has the name, until it calls what this returns, which is idempotent.

        Whoever has it is told to `stop`, once or more often, also before it has begun; those who wait get it in the
        order in which they asked.
        """

    async def try_take(self, name: str) -> Callable[[], None] | None:
        """As `take`; None if somebody has the name."""

    def taken(self, name: str) -> bool:
        """Whether somebody has the name, as far as this process knows."""


class Attempts(Protocol):
    """Sign-ins that failed, by the address that they came from."""

    async def wait(self, address: str) -> int:
        """Seconds until a sign-in from this address may be tried, for too many have failed; 0 if it may be now."""

    async def failed(self, address: str) -> None:
        """One more has failed."""


class Hold(Protocol):
    """What one running upload holds; it is let go of at the end of the `with`."""

    async def take(self, size: int) -> None:
        """`size` bytes are about to be written. Raises QuotaExceeded, BeyondGrant or StorageFull if they may not be."""

    async def hold(self, size: int) -> bool:
        """Whether `size` bytes may stay in memory until the commit; then they are taken. Raises as `take` does."""

    async def add_file(self) -> None:
        """The upload is to become one file more. Raises QuotaExceeded, BeyondGrant or StorageFull."""

    def recorded(self) -> None:
        """All that was taken is on the disk, and the index counts it from now on."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class Ledger(Protocol):
    """What running uploads hold, of all processes together."""

    @property
    def running(self) -> int:
        """Uploads of this process that hold something."""

    async def admit(self, who: Principal, size: int | None, files: int = 1, *, least: int | None = None) -> Hold:
        """What an upload of `size` bytes, or of unknown size, has to hold; to be used as a context manager.

        With `least` it holds that much if there is no room for `size`. It may become `files` files that the index does
        not count yet. Raises TooMany, QuotaExceeded, BeyondGrant or StorageFull.
        """
