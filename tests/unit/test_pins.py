"""Versions are pinned in constraints.txt alone; the conda environments repeat them and hold what their rules import."""

import ast
import re
import tomllib
from collections.abc import Collection
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENTS = sorted((ROOT / "workflow" / "envs").glob("*.yaml"))
RULE = re.compile(r"^rule (\w+):\n((?:[ \t].*\n|\n)*)", re.M)


def canonical(name: str) -> str:
    """A distribution's name as the package index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


@cache
def constraints() -> dict[str, str]:
    """The pinned version of each distribution."""
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    pins = [re.match(r"([A-Za-z0-9._-]+)==([^\s;]+)", line) for line in lines]
    assert all(pins), [line for line, pin in zip(lines, pins, strict=True) if not pin]
    return {canonical(pin[1]): pin[2] for pin in pins}


def direct_dependencies() -> set[str]:
    """What pyproject.toml asks for, with the tests' extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    return {canonical(re.match(r"[A-Za-z0-9._-]+", one)[0]) for one in asked}


def environment_pins(path: Path) -> dict[str, str]:
    """The pip section of a conda environment, as constraints are read."""
    sections = [one["pip"] for one in yaml.safe_load(path.read_text())["dependencies"] if isinstance(one, dict)]
    pins = [re.fullmatch(r"([A-Za-z0-9._-]+)(?:\[[a-z,]+\])?==(\S+)", one) for section in sections for one in section]
    assert all(pins), f"{path.name} has a line without an exact version"
    return {canonical(pin[1]): pin[2] for pin in pins}


def test_every_pin_is_exact_and_has_a_reason():
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            assert re.fullmatch(r"[A-Za-z0-9._-]+==\S+  # \S.{8,}", line), line


def test_every_direct_dependency_is_pinned():
    assert direct_dependencies() <= constraints().keys()


def test_pyproject_names_no_version_of_a_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert [one for one in project["dependencies"] if re.search(r"[<>=~!]", one)] == []


@pytest.mark.parametrize("path", ENVIRONMENTS, ids=lambda path: path.stem)
def test_an_environment_has_the_versions_of_constraints(path):
    pins = environment_pins(path)
    assert pins
    assert pins == {name: constraints().get(name, "not in constraints.txt") for name in pins}
    assert yaml.safe_load(path.read_text())["dependencies"][0] == "python=3.11"  # what the pins were tested on
    assert path.with_suffix(".post-deploy.sh").exists()  # puts headsr itself into the environment


def rules_of_workflow() -> dict[str, tuple[str, str]]:
    """Rule -> (environment, script) of every rule that runs a script."""
    found = {}
    for path in sorted((ROOT / "workflow" / "rules").glob("*.smk")):
        for name, body in RULE.findall(path.read_text()):
            environment = re.search(r'"\.\./envs/(\w+)\.yaml"', body)
            script = re.search(r'"(?:\.\./)+scripts/(\w+)\.py"', body)
            if script:
                assert environment, f"rule {name} names no conda environment"
                found[name] = (environment[1], script[1])
    assert {script for _, script in found.values()} == {path.stem for path in (ROOT / "workflow/scripts").glob("*.py")}
    return found


@cache
def imports(path: Path) -> frozenset[str]:
    """The modules that a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = _absolute(node, path)
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names if module.startswith("headsr")}
    return frozenset(found)


def _absolute(node: ast.ImportFrom, path: Path) -> str:
    """The full name of the module of a ``from`` line."""
    if not node.level:
        return node.module
    package = path.relative_to(ROOT / "src").parts[: -node.level]
    return ".".join([*package, *filter(None, [node.module])])


def reachable(script: Path) -> set[str]:
    """Top-level names of all that a script can import, through headsr's own modules."""
    todo, seen, outside = [script], set(), set()
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        for module in imports(path):
            if module.split(".")[0] != "headsr":
                outside.add(module.split(".")[0])
                continue
            base = ROOT / "src" / Path(*module.split("."))
            todo += [file for file in (base.with_suffix(".py"), base / "__init__.py") if file.exists()]
    return outside


@pytest.mark.parametrize("environment", [path.stem for path in ENVIRONMENTS])
def test_an_environment_holds_what_its_rules_import(environment):
    pins = environment_pins(ROOT / "workflow" / "envs" / f"{environment}.yaml").keys()
    lacking = {}
    for rule, (named, script) in rules_of_workflow().items():
        if named == environment and (missing := lacked(reachable(ROOT / "workflow/scripts" / f"{script}.py"), pins)):
            lacking[rule] = sorted(missing)
    assert lacking == {}


def test_what_the_package_imports_is_a_direct_dependency():
    modules = {one for path in (ROOT / "src" / "headsr").rglob("*.py") for one in imports(path)}
    assert lacked({module.split(".")[0] for module in modules}, direct_dependencies()) == set()


def lacked(modules: set[str], named: Collection[str]) -> set[str]:
    """The modules, of the installed third-party ones, that no distribution of those named brings."""
    brought_by = installed()
    return {one for one in modules & brought_by.keys() - {"headsr"} if not brought_by[one] & set(named)}


@cache
def installed() -> dict[str, set[str]]:
    """Module -> the installed distributions that bring it."""
    return {module: {canonical(one) for one in names} for module, names in packages_distributions().items()}
