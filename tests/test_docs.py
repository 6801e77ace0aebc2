"""The documents say what the code does, and their examples do what they show.

A fenced `console` block is run: each line that starts with `$ ` is a curl command, and the lines below it are what it
prints, in which `...` stands for anything within its line. The commands of one document run one after the other against
one server, which takes the place of http://127.0.0.1:8080, in a directory that holds a `song.mp3`. `$ID` is the last id
that an answer held.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from spool import cli
from spool.cli.command import DAMAGED, FAILED, INTERRUPTED, REFUSED, UNREACHED, WRONG
from spool.config import load
from spool.web import routes
from spool.web.problems import all_problems
from tests.process import Server

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("doc/*.md")])
ADDRESS = "http://127.0.0.1:8080"
SONG = b"ID3\x04\x00\x00\x00\x00\x0f\x76" + bytes(2038) + (b"\xff\xfb\x90\x64" + bytes(413)) * 5

CONFIG, HTTP, OPERATE, README = (
    (ROOT / name).read_text() for name in ("doc/config.md", "doc/http.md", "doc/operate.md", "README.md")
)
SETTINGS = load(None, {}, {})[1]
TREES = [ast.parse(path.read_text()) for path in sorted((ROOT / "spool").rglob("*.py"))]


class Example(NamedTuple):
    """One command, and the lines that it is to print."""

    command: str
    expected: str


def fences(text: str, language: str) -> list[str]:
    """What the fenced blocks of this language hold."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def examples(text: str) -> Iterator[Example]:
    for block in fences(text, "console"):
        assert block.startswith("$ "), "a console block starts with a command"
        for example in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, expected = example.partition("\n")
            yield Example(command, expected.rstrip("\n"))


def agrees(expected: str, printed: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, expected.split("..."))), printed.rstrip("\n")) is not None


def anchors(text: str) -> set[str]:
    """The fragments that a heading can be reached by, as they are commonly made."""
    unfenced = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", unfenced, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(path: Path) -> list[str]:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        name, _, fragment = link.partition("#")
        if "://" in link:
            continue
        target = (path.parent / name) if name else path
        if not target.exists() or (fragment and fragment not in anchors(target.read_text())):
            broken.append(link)
    return broken


def table(text: str, heading: str) -> dict[str, list[str]]:
    """The rows of the first table below a heading, by their first cell without its ticks."""
    section = text.partition(f"\n{heading}\n")[2]
    rows = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE)
    assert rows, heading
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows[0].splitlines()[2:]]
    return {row[0].strip("`"): row[1:] for row in cells}


def calls() -> Iterator[ast.Call]:
    return (node for tree in TREES for node in ast.walk(tree) if isinstance(node, ast.Call))


def log_events() -> dict[str, set[str]]:
    """Every event that is logged, with its fields."""
    events: dict[str, set[str]] = defaultdict(set)
    for call in calls():
        match call:
            case ast.Call(
                func=ast.Attribute(attr="debug" | "info" | "warning" | "error" | "exception"),
                args=[ast.Constant(value=str(name)), *rest],
            ):
                keys = rest[0].keys if rest and isinstance(rest[0], ast.Dict) else []
                events[name] |= {key.value for key in keys if isinstance(key, ast.Constant)}
    return events


def members() -> dict[str, set[str]]:
    """The members that each problem type is raised with, by slug."""
    slugs = {kind.__name__: kind.slug for kind in all_problems()}
    found: dict[str, set[str]] = {slug: set() for slug in slugs.values()}
    for call in calls():
        if isinstance(call.func, ast.Name) and call.func.id in slugs:
            found[slugs[call.func.id]] |= {keyword.arg for keyword in call.keywords if keyword.arg}
    return found


def entry(slug: str, status: int) -> str:
    """What doc/http.md says of a problem type."""
    heading = f"\n### `{slug}`, {status}\n"
    assert HTTP.count(heading) == 1, heading
    return re.split(r"^#", HTTP.partition(heading)[2], maxsplit=1, flags=re.MULTILINE)[0]


def all_routes() -> list[tuple[str, str]]:
    scoped = (routes.PUBLIC, routes.UPLOAD, routes.READ, routes.READ_OR_SIGNATURE, routes.DELETE, routes.METRICS)
    groups = (*scoped, routes.ANYBODY, routes.GRANT, routes.GUEST, routes.SECRET)
    return [(method, re.sub(r"\{(\w+):[^{}]*\}", r"{\1}", path)) for group in groups for method, path, _ in group]


def helped(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    """The commands that `--help` lists."""
    with pytest.raises(SystemExit):
        cli.main([*arguments, "--help"])
    return re.findall(r"^ {4}(\w+)(?: |$)", capsys.readouterr().out, re.MULTILINE)


def flags(capsys: pytest.CaptureFixture[str], *arguments: str) -> set[str]:
    with pytest.raises(SystemExit):
        cli.main([*arguments, "--help"])
    return set(re.findall(r"--[a-z-]+", capsys.readouterr().out)) - {"--help"}


@pytest.mark.parametrize("section", sorted({setting.section for setting in SETTINGS}))
def test_configuration_document_has_every_key_with_its_default(section: str) -> None:
    documented = {key: cells[0].strip("`") for key, cells in table(CONFIG, f"## [{section}]").items()}
    assert documented == {setting.key: setting.value for setting in SETTINGS if setting.section == section}


def test_configuration_document_says_what_every_key_means() -> None:
    rows = [row for section in {s.section for s in SETTINGS} for row in table(CONFIG, f"## [{section}]").values()]
    assert all(len(row) == 3 and len(row[1]) > 10 for row in rows)


def test_configuration_document_has_no_section_that_does_not_exist() -> None:
    assert set(re.findall(r"^## \[(\w+)\]$", CONFIG, re.MULTILINE)) == {setting.section for setting in SETTINGS}


@pytest.mark.parametrize("block", [block for text in (CONFIG, OPERATE) for block in fences(text, "toml")])
def test_configuration_in_a_document_loads(tmp_path: Path, block: str) -> None:
    (tmp_path / "spool.toml").write_text(block)
    load(tmp_path / "spool.toml", {}, {})


def test_settings_that_are_named_anywhere_exist() -> None:
    known = {f"{setting.section}.{setting.key}" for setting in SETTINGS}
    sections = "|".join({setting.section for setting in SETTINGS} - {"server"})
    texts = [path.read_text() for path in DOCUMENTS] + [kind.__doc__ or "" for kind in all_problems()]
    named = {name for text in texts for name in re.findall(rf"`((?:{sections})\.[a-z_]+)\b", text)}
    assert named - known - {"log.info"} == set()


def test_variables_that_are_named_anywhere_exist() -> None:
    known = {f"SPOOL_{setting.section}_{setting.key}".upper() for setting in SETTINGS}
    known |= set(re.findall(r'environ.get\("(SPOOL_\w+)"\)', (ROOT / "spool/config.py").read_text()))
    named = {name for path in DOCUMENTS for name in re.findall(r"\bSPOOL_\w+", path.read_text())}
    assert named - known - {"SPOOL_", *re.findall(r"SPOOL_TEST_\w+", (ROOT / "tests/process.py").read_text())} == set()


@pytest.mark.parametrize(("method", "path"), all_routes())
def test_route_has_an_entry(method: str, path: str) -> None:
    headings = re.findall(r"^### (`.+)$", HTTP, re.MULTILINE)
    assert [heading for heading in headings if f"`{method} {path}`" in heading] != []


def test_document_has_no_route_that_does_not_exist() -> None:
    documented = re.findall(r"`([A-Z]+) (/[^`]*)`", "\n".join(re.findall(r"^### .*$", HTTP, re.MULTILINE)))
    assert set(documented) == set(all_routes())


@pytest.mark.parametrize("kind", all_problems(), ids=lambda kind: kind.slug)
def test_problem_type_has_an_entry_that_tells_the_client_what_to_do(kind: type) -> None:
    assert "**Client:**" in entry(kind.slug, kind.status)


@pytest.mark.parametrize("kind", all_problems(), ids=lambda kind: kind.slug)
def test_problem_entry_names_every_member(kind: type) -> None:
    text = entry(kind.slug, kind.status)
    assert {member for member in members()[kind.slug] if f"`{member}`" not in text} == set()


@pytest.mark.parametrize("kind", all_problems(), ids=lambda kind: kind.slug)
def test_problem_entry_gives_the_retry_advice(kind: type) -> None:
    advice = re.findall(r"`Retry-After: (\d+)`", entry(kind.slug, kind.status))
    assert advice == ([] if kind.retry_after is None else [str(kind.retry_after)])


def test_document_has_no_problem_that_does_not_exist() -> None:
    documented = set(re.findall(r"^### `([a-z-]+)`, (\d+)$", HTTP, re.MULTILINE))
    assert documented == {(kind.slug, str(kind.status)) for kind in all_problems()}


def test_every_command_has_an_entry(capsys: pytest.CaptureFixture[str]) -> None:
    groups = {"token", "limit", "grant"}
    commands = {name for name in helped(capsys) if name not in groups}
    commands |= {f"{group} {name}" for group in groups for name in helped(capsys, group)}
    assert commands >= {"serve", "ls", "token create", "limit set"}
    assert set(table(OPERATE, "## Commands")) == {f"spool {command}" for command in commands}


def test_every_flag_of_a_command_is_in_its_entry(capsys: pytest.CaptureFixture[str]) -> None:
    for command, cells in table(OPERATE, "## Commands").items():
        missing = flags(capsys, *command.split()[1:]) - set(re.findall(r"--[a-z-]+", cells[0]))
        assert missing <= {"--config", "--dir", "--host", "--port", "--unix", "--workers"}, command


def test_every_exit_code_has_an_entry() -> None:
    start = OPERATE.index("Exit codes:")
    codes = re.findall(r"^\| `(\d+)` \|", OPERATE[start:], re.MULTILINE)
    assert codes == ["0", *map(str, (FAILED, WRONG, DAMAGED, REFUSED, UNREACHED, INTERRUPTED))]


def test_every_log_event_has_an_entry() -> None:
    assert set(table(OPERATE, "## Logs")) == set(log_events())


def test_entry_of_a_log_event_names_its_fields() -> None:
    documented = {event: set(re.findall(r"`(\w+)`", cells[1])) for event, cells in table(OPERATE, "## Logs").items()}
    assert documented == log_events()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    assert broken_links(path) == []


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        name for path in DOCUMENTS for name in re.findall(r"(?:^|`)make ([a-z]+)\b", path.read_text(), re.MULTILINE)
    }
    assert named >= {"run", "test"}
    assert named - targets == set()


def test_readme_shows_how_to_start_and_test() -> None:
    lines = [line for block in fences(README, "sh") for line in block.splitlines()]
    assert {"make run", "make test"} <= {" ".join(line.split()[:2]) for line in lines}


def test_readme_shows_an_upload_and_a_listing() -> None:
    commands = [example.command for example in examples(README)]
    assert any("-F" in command for command in commands)
    assert any("/files?" in command for command in commands)


@pytest.mark.parametrize("path", [p for p in DOCUMENTS if fences(p.read_text(), "console")], ids=lambda p: p.name)
def test_examples_print_what_they_show(path: Path, tmp_path: Path) -> None:
    (tmp_path / "song.mp3").write_bytes(SONG)
    environment = {**os.environ, "ID": ""}
    with Server(tmp_path / "spool") as server:
        for command, expected in examples(path.read_text()):
            assert command.startswith("curl "), command
            done = subprocess.run(
                ["sh", "-c", command.replace(ADDRESS, server.url)],
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                timeout=60,
                check=True,
            )
            printed = done.stdout.replace(server.url, ADDRESS)
            assert agrees(expected, printed), f"$ {command}\n{expected}\nbut it printed:\n{printed}"
            environment["ID"] = ([environment["ID"], *re.findall(r'"id": "(\w+)"', printed)])[-1]


@pytest.mark.parametrize(
    ("expected", "printed", "agree"),
    [
        ("204", "204\n", True),
        ("204", "2045\n", False),
        ('{"id": "...", "size": 7}', '{"id": "ab", "size": 7}\n', True),
        ('{"id": "...", "size": 7}', '{"id": "ab", "size": 8}\n', False),
        ("a...", "a\nb\n", False),
        ("a...\nb", "ac\nb\n", True),
        ("a.c", "abc\n", False),
        ("", "something\n", False),
    ],
)
def test_dots_stand_for_anything_within_a_line(expected: str, printed: str, agree: bool) -> None:  # noqa: FBT001
    assert agrees(expected, printed) == agree


def test_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# One\n## Two, `three` (4)\n")
    links = "[a](a.md) [b](a.md#one) [c](a.md#two-three-4) [d](b.md) [e](a.md#five) [f](#six) [g](https://x.example/)"
    (tmp_path / "c.md").write_text(links)
    assert broken_links(tmp_path / "c.md") == ["b.md", "a.md#five", "#six"]


def test_log_events_are_found_with_their_fields() -> None:
    events = log_events()
    assert events["upload.committed"] == {"id", "owner", "filename", "size", "type"}
    assert events["server.stopped"] == set()
