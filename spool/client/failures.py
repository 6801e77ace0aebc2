"""What goes wrong on the client's side. What the server refuses is a SpoolError."""

from __future__ import annotations


class Failure(Exception):
    """One sentence says what went wrong."""


class Unreachable(Failure):
    """The server gives no answer, or the connection was lost. What was asked may have been done."""


class Untrusted(Unreachable):
    """The server's certificate is not to be trusted. To try again does not help."""


class StrangeAnswer(Failure):
    """The answer is none that a Spool gives: the address is another server's, or something stands between."""


class Mismatch(Failure):
    """What the server stored, or what came from it, has another SHA-256 than it should have."""


class Changed(Failure):
    """The local file changed while it was being sent."""


class Busy(Failure):
    """Another process is sending the same file, or fetching the same bytes into the same directory."""
