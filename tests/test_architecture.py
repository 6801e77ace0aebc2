"""The laws of doc/design.md, over the source of spool/. Each rule is shown a source that breaks it, too."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent

FLOORS = (
    ("model", "errors", "units"),
    ("sharing", "hiding", "batch"),
    (
        "ports",
        "policy",
        "tokens",
        "config",
        "labels",
        "logs",
        "lifecycle",
        "staging",
        "metrics",
        "systemd",
        "turns",
        "process",
        "counting",
    ),
    (
        "admission",
        "attempts",
        "idempotency",
        "ingest",
        "catalog",
        "certificate",
        "sniff",
        "turn",
        "rates",
        "guests",
        "tracing",
    ),
    ("resumption",),
    ("web", "work", "crew"),
    ("upkeep",),
    ("serve",),
    ("workers",),
    ("integrity",),
    ("cli",),
    ("__main__",),
)
"""Who is below whom. A module sees the floors below its own; for types only, also its own."""
ANNEXES = {
    "protocol": {"model", "errors"},
    "store": {"model", "errors", "sharing", "hiding", "batch", "ports"},
    "client": {"model", "errors", "units"},
}
"""Rooms that stand beside the floors, and all that they see."""
ROOMS = {"web", "work", "crew", *ANNEXES}
DRIVERS = {"protocol": {"web"}, "store": {"serve", "integrity", "cli"}, "client": {"cli"}}
"""Who may drive a room beside the floors."""

DOORS = {
    "aiohttp": ("web/", "serve.py", "client/"),
    "aiojobs": ("web/upload.py", "web/resumable.py", "serve.py", "upkeep.py"),
    "aiofiles": ("store/local/",),
    "magic": ("sniff.py",),
    "pylibmagic": ("sniff.py",),
    "http_sf": ("protocol/",),
    "sqlite3": ("store/",),
    "prometheus_client": ("web/metrics.py",),
    "rich": ("cli/report.py",),
    "shtab": ("cli/completion.py",),
    "opentelemetry": ("tracing.py",),
}
"""Where each third-party package, and SQLite, may be imported."""
SANS_IO = {"asyncio", "os", "socket", "ssl", "time", "threading", "concurrent", "pathlib", "io"}
"""What a protocol must not know."""

FORBIDDEN_FILES = {"utils.py", "helpers.py", "common.py", "base.py"}
FORBIDDEN_ENDINGS = ("Manager", "Service", "Impl")
BACK_ENDS = {"local", "sqlite", "s3", "postgres", "memory"}
MUTABLE = {"list", "dict", "set", "defaultdict", "deque", "Counter", "OrderedDict", "bytearray"}
MOST_FUNCTION_LINES = 40
MOST_FILE_LINES = 400


class Source(NamedTuple):
    """A module's path below spool/, and its text."""

    path: str
    text: str

    @property
    def module(self) -> str:
        """The module or room it belongs to."""
        return self.path.partition("/")[0].removesuffix(".py")

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)


SOURCES = [Source(str(p.relative_to(ROOT / "spool")), p.read_text()) for p in sorted((ROOT / "spool").rglob("*.py"))]

Rule = Callable[[Source], Iterator[str]]


class Import(NamedTuple):
    """One imported module, and whether it is for types only."""

    name: str
    for_types: bool
    line: int


def imports(tree: ast.Module) -> Iterator[Import]:
    typing_blocks = [
        node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
    ]
    for_types = {id(inner) for block in typing_blocks for statement in block.body for inner in ast.walk(statement)}
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                names = [alias.name for alias in node.names]
            case ast.ImportFrom(module="spool"):
                names = [f"spool.{alias.name}" for alias in node.names]
            case ast.ImportFrom(level=0):
                names = [node.module or ""]
            case ast.ImportFrom():
                names = ["spool.<relative>"]
            case _:
                continue
        yield from (Import(name, id(node) in for_types, node.lineno) for name in names)


def floor(module: str) -> int:
    return next((height for height, modules in enumerate(FLOORS) if module in modules), -1)


def import_law(source: Source) -> Iterator[str]:
    for name, for_types, line in imports(source.tree):
        package, _, rest = name.partition(".")
        target = rest.partition(".")[0]
        if package != "spool" or target in (source.module, "__version__", ""):
            continue
        if not _may_see(source, target, for_types=for_types):
            yield f"{source.path}:{line} imports {name}"


def _may_see(source: Source, target: str, *, for_types: bool) -> bool:
    if source.module in ANNEXES:
        return target in ANNEXES[source.module]
    if target in DRIVERS:
        return source.module in DRIVERS[target]
    if floor(source.module) < 0 or floor(target) < 0:
        return False
    if floor(source.module) == 0 or {source.module, target} <= ROOMS:
        return False
    return floor(target) < floor(source.module) or (for_types and floor(target) == floor(source.module))


def one_door_for_each_package(source: Source) -> Iterator[str]:
    for name, _, line in imports(source.tree):
        doors = DOORS.get(name.partition(".")[0])
        if doors is not None and not source.path.startswith(doors):
            yield f"{source.path}:{line} imports {name}"


def protocols_are_sans_io(source: Source) -> Iterator[str]:
    for name, _, line in imports(source.tree):
        if source.module == "protocol" and name.partition(".")[0] in SANS_IO:
            yield f"{source.path}:{line} imports {name}"


def no_forbidden_module(source: Source) -> Iterator[str]:
    if source.path.rpartition("/")[2] in FORBIDDEN_FILES:
        yield source.path


def no_forbidden_class(source: Source) -> Iterator[str]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ClassDef) and node.name.endswith(FORBIDDEN_ENDINGS):
            yield f"{source.path}:{node.lineno} {node.name}"


def time_is_told_by_the_clock(source: Source) -> Iterator[str]:
    if source.module in ("serve", "cli", "client"):  # a client is told the time by its own machine
        return
    for node in ast.walk(source.tree):
        match node:
            case ast.Attribute(attr="now" | "utcnow" | "today", value=ast.Name(id="datetime" | "date")):
                yield f"{source.path}:{node.lineno} {ast.unparse(node)}"
            case ast.Attribute(attr="now" | "utcnow" | "today", value=ast.Attribute(attr="datetime" | "date")):
                yield f"{source.path}:{node.lineno} {ast.unparse(node)}"
            case ast.Attribute(attr="time" | "time_ns", value=ast.Name(id="time")):
                yield f"{source.path}:{node.lineno} {ast.unparse(node)}"


def environment_is_read_by_the_configuration(source: Source) -> Iterator[str]:
    if source.path == "config.py":
        return
    for node in ast.walk(source.tree):
        match node:
            case ast.Attribute(attr="environ" | "environb" | "getenv", value=ast.Name(id="os")):
                yield f"{source.path}:{node.lineno} {ast.unparse(node)}"
            case ast.ImportFrom(module="os") if {"environ", "environb", "getenv"} & {a.name for a in node.names}:
                yield f"{source.path}:{node.lineno} {ast.unparse(node)}"


def no_error_is_swallowed_unnamed(source: Source) -> Iterator[str]:
    for node in ast.walk(source.tree):
        match node:
            case ast.ExceptHandler(type=None):
                yield f"{source.path}:{node.lineno} except:"
            case ast.ExceptHandler(type=caught, body=[ast.Pass() | ast.Continue() | ast.Expr(ast.Constant())]):
                if caught is not None and _is_everything(caught):
                    yield f"{source.path}:{node.lineno} except {ast.unparse(caught)}: pass"
            case ast.Call(func=ast.Name("suppress") | ast.Attribute(attr="suppress")):
                if any(map(_is_everything, node.args)):
                    yield f"{source.path}:{node.lineno} {ast.unparse(node)}"


def _is_everything(caught: ast.expr) -> bool:
    return any(isinstance(n, ast.Name) and n.id in ("Exception", "BaseException") for n in ast.walk(caught))


def back_ends_are_chosen_in_one_place(source: Source) -> Iterator[str]:
    if source.path == "store/__init__.py":
        return
    for node in ast.walk(source.tree):
        compared: list[ast.expr] = []
        match node:
            case ast.Compare():
                compared = [node.left, *node.comparators]
            case ast.MatchValue():
                compared = [node.value]
        words = [n.value for c in compared for n in ast.walk(c) if isinstance(n, ast.Constant)]
        yield from (f"{source.path}:{node.lineno} compares with {word!r}" for word in words if word in BACK_ENDS)


def functions_are_short(source: Source) -> Iterator[str]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            if lines > MOST_FUNCTION_LINES:
                yield f"{source.path}:{node.lineno} {node.name} has {lines} lines"


def files_are_short(source: Source) -> Iterator[str]:
    lines = len(source.text.splitlines())
    if lines > MOST_FILE_LINES:
        yield f"{source.path} has {lines} lines"


def requests_stay_in_web(source: Source) -> Iterator[str]:
    if source.module == "web":
        return
    for node in ast.walk(source.tree):
        match node:
            case ast.Attribute(attr="Request" | "BaseRequest", value=ast.Name(id="web")):
                yield f"{source.path}:{node.lineno} {ast.unparse(node)}"
            case ast.ImportFrom(module=str(module)) if module.startswith("aiohttp"):
                names = {alias.name for alias in node.names} & {"Request", "BaseRequest"}
                yield from (f"{source.path}:{node.lineno} imports {name}" for name in sorted(names))


def no_module_holds_state(source: Source) -> Iterator[str]:
    """A constant is named like one and never changed; a container made empty is there to be filled."""
    for node in source.tree.body:
        value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
        match value:
            case ast.List(elts=[]) | ast.Dict(keys=[]):
                yield f"{source.path}:{node.lineno} {ast.unparse(node)}"
            case ast.Call(func=ast.Name(id=name), args=[]) if name in MUTABLE:
                yield f"{source.path}:{node.lineno} {ast.unparse(node)}"
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Global):
            yield f"{source.path}:{node.lineno} {ast.unparse(node)}"


def every_task_has_an_owner(source: Source) -> Iterator[str]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute) and node.attr == "create_task":
            yield f"{source.path}:{node.lineno} {ast.unparse(node)}"


RULES = [
    import_law,
    one_door_for_each_package,
    protocols_are_sans_io,
    no_forbidden_module,
    no_forbidden_class,
    time_is_told_by_the_clock,
    environment_is_read_by_the_configuration,
    no_error_is_swallowed_unnamed,
    back_ends_are_chosen_in_one_place,
    functions_are_short,
    files_are_short,
    requests_stay_in_web,
    no_module_holds_state,
    every_task_has_an_owner,
]

BREACHES: list[tuple[Rule, str, str]] = [
    (import_law, "model.py", "from spool.errors import SpoolError"),
    (import_law, "errors.py", "import spool.units"),
    (import_law, "policy.py", "from spool.ingest import Ingest"),
    (import_law, "policy.py", "from spool import ingest"),
    (import_law, "config.py", "from spool.policy import Policy"),
    (import_law, "ports.py", "def f():\n    from spool.store import LocalStore"),
    (import_law, "ingest.py", "from spool.web.site import Site"),
    (import_law, "ingest.py", "from spool.store import LocalStore"),
    (import_law, "ingest.py", "from spool.protocol.http import parse_range"),
    (import_law, "ingest.py", "from spool.admission import Admission"),
    (import_law, "catalog.py", "if TYPE_CHECKING:\n    from spool.serve import Site"),
    (import_law, "lifecycle.py", "from spool.policy import Policy"),
    (import_law, "staging.py", "from spool.ingest import Ingest"),
    (import_law, "turn.py", "from spool.ingest import Ingest"),
    (import_law, "turn.py", "if TYPE_CHECKING:\n    from spool.resumption import Resumption"),
    (import_law, "ingest.py", "from spool.resumption import Resumption"),
    (import_law, "resumption.py", "from spool.protocol.resumable import Create"),
    (import_law, "resumption.py", "from spool.web.resumable import drive"),
    (import_law, "work/resumables.py", "from spool.web.resumable import drive"),
    (import_law, "catalog.py", "from . import model"),
    (import_law, "web/files.py", "from spool.work import gc"),
    (import_law, "work/gc.py", "from spool.web.site import Site"),
    (import_law, "web/files.py", "from spool.store import LocalStore"),
    (import_law, "web/files.py", "from spool.serve import now"),
    (import_law, "work/gc.py", "if TYPE_CHECKING:\n    from spool.store import LocalStore"),
    (import_law, "work/gc.py", "from spool.protocol import http"),
    (import_law, "serve.py", "from spool.cli import main"),
    (import_law, "protocol/http.py", "from spool.ports import Clock"),
    (import_law, "protocol/http.py", "from spool.web.body import Body"),
    (import_law, "store/local/", "from spool.policy import Policy"),
    (import_law, "store/local/", "from spool.protocol.http import parse_range"),
    (import_law, "sharing.py", "from spool.ports import Clock"),
    (import_law, "client/upload.py", "from spool.protocol.rufh import Rufh"),
    (import_law, "client/client.py", "from spool.config import load"),
    (import_law, "web/files.py", "from spool.client import Client"),
    (import_law, "ingest.py", "from spool.newcomer import thing"),
    (import_law, "newcomer.py", "from spool.model import File"),
    (one_door_for_each_package, "ingest.py", "from aiohttp import web"),
    (one_door_for_each_package, "web/files.py", "from aiojobs.aiohttp import atomic"),
    (one_door_for_each_package, "web/files.py", "import aiofiles.os"),
    (one_door_for_each_package, "store/sqlite/index.py", "from aiofiles.os import wrap"),
    (one_door_for_each_package, "ingest.py", "import magic"),
    (one_door_for_each_package, "web/files.py", "if TYPE_CHECKING:\n    import http_sf"),
    (one_door_for_each_package, "catalog.py", "import sqlite3"),
    (one_door_for_each_package, "cli/remote.py", "from rich.progress import Progress"),
    (protocols_are_sans_io, "protocol/http.py", "import asyncio"),
    (protocols_are_sans_io, "protocol/http.py", "from os import path"),
    (no_forbidden_module, "web/utils.py", ""),
    (no_forbidden_module, "helpers.py", ""),
    (no_forbidden_class, "ingest.py", "class UploadManager:\n    pass"),
    (no_forbidden_class, "ingest.py", "def f():\n    class StoreImpl:\n        pass"),
    (time_is_told_by_the_clock, "ingest.py", "now = datetime.now(UTC)"),
    (time_is_told_by_the_clock, "ingest.py", "now = datetime.datetime.utcnow()"),
    (time_is_told_by_the_clock, "web/site.py", "clock = datetime.now"),
    (time_is_told_by_the_clock, "web/site.py", "now = time.time()"),
    (environment_is_read_by_the_configuration, "serve.py", "home = os.environ['HOME']"),
    (environment_is_read_by_the_configuration, "serve.py", "home = os.getenv('HOME')"),
    (environment_is_read_by_the_configuration, "cli/ls.py", "from os import environ"),
    (no_error_is_swallowed_unnamed, "ingest.py", "try:\n    f()\nexcept Exception:\n    pass"),
    (no_error_is_swallowed_unnamed, "ingest.py", "try:\n    f()\nexcept (OSError, BaseException) as e:\n    ..."),
    (
        no_error_is_swallowed_unnamed,
        "ingest.py",
        "for x in y:\n    try:\n        f()\n    except Exception:\n        continue",
    ),
    (no_error_is_swallowed_unnamed, "ingest.py", "try:\n    f()\nexcept:\n    raise"),
    (no_error_is_swallowed_unnamed, "ingest.py", "with contextlib.suppress(Exception):\n    f()"),
    (back_ends_are_chosen_in_one_place, "serve.py", "if backend == 's3':\n    pass"),
    (back_ends_are_chosen_in_one_place, "serve.py", "if backend in ('local', 'memory'):\n    pass"),
    (back_ends_are_chosen_in_one_place, "serve.py", "match backend:\n    case 'sqlite':\n        pass"),
    (functions_are_short, "ingest.py", "def f():\n" + "    x = 1\n" * 40),
    (functions_are_short, "ingest.py", "class C:\n    async def f():\n" + "        x = 1\n" * 40),
    (files_are_short, "ingest.py", "x = 1\n" * 401),
    (requests_stay_in_web, "ingest.py", "def f(request: web.Request): ..."),
    (requests_stay_in_web, "serve.py", "from aiohttp.web import Request"),
    (no_module_holds_state, "ingest.py", "_cache: dict[str, int] = {}"),
    (no_module_holds_state, "ingest.py", "seen = set()"),
    (no_module_holds_state, "ingest.py", "def f():\n    global count\n    count = 1"),
    (every_task_has_an_owner, "serve.py", "asyncio.create_task(f())"),
]

KEPT: list[tuple[Rule, str, str]] = [
    (import_law, "ingest.py", "if TYPE_CHECKING:\n    from spool.admission import Admission"),
    (import_law, "ingest.py", "from spool.staging import Stage"),
    (import_law, "resumption.py", "from spool.turn import Turn"),
    (import_law, "web/resumable.py", "from spool.turn import Turn"),
    (import_law, "work/resumables.py", "from spool.resumption import Resumption"),
    (import_law, "store/local/", "from spool.store.local.layout import Layout"),
    (import_law, "web/files.py", "from spool.protocol.http import parse_range"),
    (import_law, "web/files.py", "from spool.web.site import SITE"),
    (import_law, "serve.py", "from spool import __version__"),
    (import_law, "cli/ls.py", "def f():\n    from spool import serve, logs"),
    (import_law, "cli/talk.py", "from spool.client import Client"),
    (import_law, "client/client.py", "from spool.client.upload import Upload"),
    (one_door_for_each_package, "client/connection.py", "import aiohttp"),
    (one_door_for_each_package, "store/sqlite/index.py", "import sqlite3"),
    (one_door_for_each_package, "web/resumable.py", "from aiojobs.aiohttp import atomic"),
    (one_door_for_each_package, "web/files.py", "from aiohttp import web"),
    (time_is_told_by_the_clock, "cli/ls.py", "now = datetime.now(UTC)"),
    (time_is_told_by_the_clock, "client/client.py", "now = datetime.now(UTC)"),
    (time_is_told_by_the_clock, "web/body.py", "clock = asyncio.get_running_loop().time"),
    (environment_is_read_by_the_configuration, "config.py", "environ = os.environ"),
    (no_error_is_swallowed_unnamed, "ingest.py", "try:\n    f()\nexcept Exception:\n    log()"),
    (no_error_is_swallowed_unnamed, "ingest.py", "try:\n    f()\nexcept NotFound:\n    pass"),
    (back_ends_are_chosen_in_one_place, "store/__init__.py", "if backend == 's3':\n    pass"),
    (functions_are_short, "ingest.py", "def f():\n" + "    x = 1\n" * 39),
    (files_are_short, "ingest.py", "x = 1\n" * 400),
    (requests_stay_in_web, "web/files.py", "def f(request: web.Request): ..."),
    (no_module_holds_state, "ingest.py", "KINDS: Final = {'a': 1}"),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_source_keeps_the_rule(rule: Rule) -> None:
    assert [breach for source in SOURCES for breach in rule(source)] == []


@pytest.mark.parametrize(("rule", "path", "text"), BREACHES, ids=lambda value: getattr(value, "__name__", None))
def test_breach_of_the_rule_is_found(rule: Rule, path: str, text: str) -> None:
    assert len(list(rule(Source(path, text)))) >= 1


@pytest.mark.parametrize(("rule", "path", "text"), KEPT, ids=lambda value: getattr(value, "__name__", None))
def test_source_that_keeps_the_rule_is_let_through(rule: Rule, path: str, text: str) -> None:
    assert list(rule(Source(path, text))) == []


def test_every_rule_can_fail() -> None:
    assert {rule for rule, _, _ in BREACHES} == set(RULES)


def test_all_modules_are_looked_at() -> None:
    modules = {source.module for source in SOURCES} - {"__init__"}
    assert modules == {module for modules in FLOORS for module in modules} | set(ANNEXES)


def test_design_names_every_module() -> None:
    design = (ROOT / "doc" / "design.md").read_text()
    house = re.search(r"```\nspool/\n(.*?)```", design, re.DOTALL)
    assert house
    named = set(re.findall(r"(\w+)(?:\.py|/)", house[1]))
    assert {source.module for source in SOURCES} - named <= {"__init__", "__main__"}
