"""No message advises to delete: what headsr did not write is not its own, and what it did may be moved away."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = [
    path
    for folder in ("src/headsr", "workflow")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in (".py", ".smk")
]
DELETING = re.compile(
    r"\b(delete|remove|erase|discard|unlink|rm|throw)\b(?! row| the one\b| that row| one row)", re.IGNORECASE
)
# What headsr has read there says that it is its own: a lock that names its process, the state of another training.
OWN = {"lock.py": "delete", "loop.py": "delete", "state.py": "delete"}


def messages(path: Path) -> list[str]:
    """Every text in a Python file that is neither documentation nor a name: what may be said to people."""
    tree = ast.parse(path.read_text())
    documentation = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    texts = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str))
    return [node.value for node in texts if id(node) not in documentation and " " in node.value.strip()]


@pytest.mark.parametrize("path", [p for p in SOURCES if p.suffix == ".py"], ids=lambda p: str(p.relative_to(ROOT)))
def test_no_message_advises_to_delete(path):
    found = {match.group().lower() for text in messages(path) for match in DELETING.finditer(text)}
    assert found <= {OWN.get(path.name, "")}, found


@pytest.mark.parametrize("path", [p for p in SOURCES if p.suffix == ".smk"], ids=lambda p: p.name)
def test_no_rule_advises_to_delete(path):
    assert not [line for line in path.read_text().splitlines() if '"' in line and DELETING.search(line)]


def test_the_search_sees_what_it_is_for():
    assert messages(ROOT / "src/headsr/lock.py") and DELETING.search("is damaged. Delete it and fit again")
    assert not DELETING.search("is listed twice. Remove one row") and not DELETING.search("it was deleted")
