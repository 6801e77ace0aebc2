"""doc/security.md names every requirement, and tests that exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.test_docs import fences, table

ROOT = Path(__file__).parent.parent
SECURITY = (ROOT / "doc" / "security.md").read_text()
OPERATE = (ROOT / "doc" / "operate.md").read_text()
THREATS, ASVS, SHEET = "## Threats", "## ASVS 5.0, chapter 5", "## OWASP File Upload Cheat Sheet"
IDS = {1: 1, 2: 6, 3: 3, 4: 3}
"""How many requirements each section of the chapter has."""
HEADINGS = {
    *("Extension Validation", "Content-Type Validation", "File Signature Validation", "Filename Sanitization"),
    *("File Content Validation", "File Storage Location", "User Permissions", "Filesystem Permissions"),
    *("Upload and Download Limits", "Malicious Files", "Public File Retrieval", "CSRF"),
}
PLAINLY = ("**Not done:**", "**Left to the operator", "**Does not apply:**")
NAMED = re.compile(r"`(tests/[\w/]+\.py)::([\w:]+)`")


@cache
def named_in(path: Path) -> set[str]:
    """The tests that a file holds, by name, or by class and name."""
    found = set()
    for node in ast.parse(path.read_text()).body if path.exists() else []:
        inner = [(f"{node.name}::", each) for each in node.body] if isinstance(node, ast.ClassDef) else [("", node)]
        for prefix, each in inner:
            if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) and each.name.startswith("test_"):
                found.add(prefix + each.name)
    return found


def missing(text: str) -> list[str]:
    """The tests that a text names and that are not there."""
    return [f"{path}::{name}" for path, name in NAMED.findall(text) if name not in named_in(ROOT / path)]


def test_tests_that_are_named_exist() -> None:
    assert len(NAMED.findall(SECURITY)) > 100
    assert missing(SECURITY) == []
    assert len(NAMED.findall(SECURITY)) == SECURITY.count("`tests/") - 1  # this file


def test_test_that_is_named_wrongly_is_found() -> None:
    here = "tests/test_security_doc.py"
    right, wrong = f"`{here}::test_tests_that_are_named_exist`", f"`{here}::test_of_nothing`"
    assert missing(right + wrong + "`tests/nowhere.py::test_a`") == [wrong.strip("`"), "tests/nowhere.py::test_a"]


def test_every_threat_has_a_row() -> None:
    assert list(table(SECURITY, THREATS)) == [str(number) for number in range(1, 47)]


def test_every_requirement_of_the_chapter_has_a_row() -> None:
    wanted = [f"V5.{section}.{number}" for section, count in IDS.items() for number in range(1, count + 1)]
    assert list(table(SECURITY, ASVS)) == wanted


def test_every_heading_of_the_sheet_has_a_row() -> None:
    assert set(table(SECURITY, SHEET)) == HEADINGS


@pytest.mark.parametrize("heading", [THREATS, ASVS, SHEET])
def test_row_names_a_test_or_says_plainly_that_there_is_none(heading: str) -> None:
    silent = [
        name
        for name, cells in table(SECURITY, heading).items()
        if not NAMED.search(cells[-1]) and not any(words in cells[-2] for words in PLAINLY)
    ]
    assert silent == []


def test_configuration_of_nginx_that_is_shown_keeps_the_fence() -> None:
    (block,) = [block for block in fences(OPERATE, "nginx") if "internal;" in block]
    for field in ("X-Content-Type-Options", "Content-Security-Policy", "Cross-Origin-Resource-Policy"):
        assert f"add_header {field} " in block
