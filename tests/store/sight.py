"""Looks over an SQLite index's shoulder."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Awaitable


class Sight:
    """The connections of an index, and the statements that go through them."""

    def __init__(self) -> None:
        self.connections: list[sqlite3.Connection] = []
        self.statements: list[str] = []

    def __call__(self, connection: sqlite3.Connection) -> None:
        self.connections.append(connection)
        connection.set_trace_callback(self.statements.append)

    def take(self) -> list[str]:
        taken, self.statements[:] = self.statements[:], []
        return taken

    def plans(self) -> list[tuple[str, list[str]]]:
        """The statements since the last `take` that find rows, and how SQLite goes about each."""
        finding = ("SELECT", "UPDATE", "DELETE")
        queries = [statement for statement in self.take() if statement.startswith(finding)]
        explain = self.connections[0].execute
        return [(query, [row[3] for row in explain(f"EXPLAIN QUERY PLAN {query}")]) for query in queries]

    async def steps(self, operation: Awaitable[object]) -> int:
        """How many steps of SQLite's machine the operation takes."""
        steps = 0

        def step() -> int:
            nonlocal steps
            steps += 1
            return 0

        for connection in self.connections:
            connection.set_progress_handler(step, 1)
        await operation
        return steps
