"""Spool for programs: store, find, fetch, share and delete files of a server.

    async with Client("https://spool.example.org", token) as spool:
        file = await spool.put("clip.mp4", metadata={"title": "Demo"})
        await spool.get(file.id, "copy.mp4")

What the server refuses is raised as the class of `spool.errors` that its problem document names; what goes wrong on
this side is a `Failure`. Both are tried again where that may help, a bounded number of times.
"""

from spool.client.client import Client
from spool.client.failures import Busy, Changed, Failure, Mismatch, StrangeAnswer, Unreachable, Untrusted
from spool.client.file import File, Sent
from spool.client.guest import Guest, Invitation
from spool.client.link import Link, MadeLink

__all__ = [
    "Busy",
    "Changed",
    "Client",
    "Failure",
    "File",
    "Guest",
    "Invitation",
    "Link",
    "MadeLink",
    "Mismatch",
    "Sent",
    "StrangeAnswer",
    "Unreachable",
    "Untrusted",
]
