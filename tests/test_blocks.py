"""No fenced block of a document goes unseen: it is run, or looked up here, or says why neither.

Run are `console` blocks (test_docs.py), `shell-session` and `python` ones (test_tutorial.py, client/test_examples.py),
`toml` (test_docs.py) and `nginx` (e2e/test_nginx_doc.py). Here each command of a `sh` block is parsed as our own parser
does, and its addresses are looked for among the routes; a comment before any other block says why it is not run:
`<!-- not run: the reason -->`.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

import pytest
import yaml

from spool.cli import make_parser
from tests.process import Server
from tests.test_docs import ADDRESS, DOCUMENTS, README, ROOT, SONG, all_routes, fences

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RUN = {"console", "shell-session", "python", "toml", "nginx", "yaml"}
"""Languages all of whose blocks are run, or loaded."""
KNOWN = {"spool", "make", "curl", "jq", "mkdir"}
"""Programs whose commands are looked up, or need no proof."""
HOSTS = {"127.0.0.1:8080", "spool.example.org"}
ENDS = {";", "&&", "||", "|", "(", ")", ";;", "&"}
PYTHON = {"README.md", "client.md", "howto.md"}
"""Documents whose programs are run."""


class Block(NamedTuple):
    """A fenced block, and why it is not run, if it says so."""

    path: Path
    language: str
    text: str
    reason: str | None

    def __str__(self) -> str:
        return f"{self.path.name}: {self.text.splitlines()[0][:40]}"


def blocks(path: Path) -> Iterator[Block]:
    pattern = r"^(?:<!-- not run: (.+?) -->\n)?```([\w-]*)\n(.*?)^```$"
    for reason, language, text in re.findall(pattern, path.read_text(), re.MULTILINE | re.DOTALL):
        yield Block(path, language, text, reason or None)


def commands(text: str) -> Iterator[list[str]]:
    """Each simple command of a script, without redirections, variables before it, and who runs it."""
    for line in text.replace("\\\n", " ").splitlines():
        words: list[str] = []
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        for word in [*lexer, ";"]:
            if word not in ENDS:
                words.append(word)
                continue
            if command := _bare(words):
                yield command
            words = []


def _bare(words: list[str]) -> list[str]:
    kept = [word for number, word in enumerate(words) if not {word, words[number - 1] if number else ""} & {"<", ">"}]
    while kept and (re.match(r"\w+=", kept[0]) or kept[0] in ("exec", "sudo")):
        kept = kept[3:] if kept[0] == "sudo" else kept[1:]  # sudo -u NAME
    return kept


ALL = [block for path in DOCUMENTS for block in blocks(path)]
SCRIPTS = [block for block in ALL if block.language == "sh"]
PATHS = [re.compile(re.sub(r"\\\{\w+\\\}", "[^/]*", re.escape(path))) for _, path in all_routes()]


def is_route(address: str) -> bool:
    return any(path.fullmatch(urlsplit(address).path or "/") for path in PATHS)


def test_every_block_is_run_or_says_why() -> None:
    left = [str(block) for block in ALL if block.language not in RUN | {"sh"} and not block.reason]
    left += [str(block) for block in ALL if block.language == "python" and block.path.name not in PYTHON]
    assert left == []


def test_reason_names_tests_that_are_there() -> None:
    named = {name for block in ALL for name in re.findall(r"tests/[\w/.]*\w", block.reason or "")}
    assert named
    assert {name for name in named if not (ROOT / name).exists()} == set()


@pytest.mark.parametrize("block", SCRIPTS, ids=str)
def test_script_has_commands_that_are_looked_up_or_says_why(block: Block) -> None:
    unknown = {command[0] for command in commands(block.text)} - KNOWN
    assert unknown == set() or block.reason


@pytest.mark.parametrize("block", SCRIPTS, ids=str)
def test_command_of_a_script_is_one_that_we_have(block: Block, capsys: pytest.CaptureFixture[str]) -> None:
    for program, *arguments in commands(block.text):
        if program.rpartition("/")[2] == "spool":
            try:
                make_parser().parse_args(arguments)
            except SystemExit:
                pytest.fail(f"spool {' '.join(arguments)}: {capsys.readouterr().err}")


@pytest.mark.parametrize("block", SCRIPTS, ids=str)
def test_address_of_a_script_is_one_that_we_have(block: Block) -> None:
    for program, *arguments in commands(block.text):
        ours = [word for word in arguments if urlsplit(word).netloc in HOSTS]
        assert [word for word in ours if program == "curl" and not is_route(word)] == []


@pytest.mark.parametrize("block", SCRIPTS, ids=str)
def test_file_of_the_checkout_that_a_script_names_is_there(block: Block) -> None:
    words = {word for command in commands(block.text) for word in command[1:]}
    named = {word for word in words if re.match(r"(deploy|doc)/|requirements.*\.txt$|config\.example", word)}
    assert {word for word in named - {"deploy/tls"} if not (ROOT / word).exists()} == set()


def test_metrics_are_scraped_by_the_name_that_the_alerts_know() -> None:
    [block] = fences((ROOT / "doc/operate.md").read_text(), "yaml")
    [job] = yaml.safe_load(block)["scrape_configs"]
    rules = (ROOT / "doc/monitoring/alerts.yaml").read_text() + (ROOT / "doc/monitoring/dashboard.json").read_text()
    assert set(re.findall(r'job=\\?"(\w+)', rules)) == {job["job_name"]}


@pytest.mark.parametrize("block", fences(README, "python"))
def test_program_of_the_readme_runs(block: str, tmp_path: Path) -> None:
    pytest.importorskip("tusclient")
    (tmp_path / "song.mp3").write_bytes(SONG)
    with Server(tmp_path / "spool") as server:
        command = [sys.executable, "-c", block.replace(ADDRESS, server.url)]
        subprocess.run(command, cwd=tmp_path, env={**os.environ, "HOME": str(tmp_path)}, timeout=60, check=True)
        assert [file["filename"] for file in server.files()] == ["song.mp3"]


def test_commands_of_a_script_are_found() -> None:
    text = '(umask 077; A=1 spool ls > x)\ncurl -d "a; b" \\\n  y | jq -r .id  # c\nsudo -u me /opt/spool gc\n'
    found = [["umask", "077"], ["spool", "ls"], ["curl", "-d", "a; b", "y"], ["jq", "-r", ".id"], ["/opt/spool", "gc"]]
    assert list(commands(text)) == found


def test_address_that_is_no_route_is_found() -> None:
    assert is_route("https://spool.example.org/files/$ID/links")
    assert not is_route("https://spool.example.org/uploads.php")
