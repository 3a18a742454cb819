"""What every stage and every part computes, as one digest of all the code that it can reach.

``python tests/unit/stage_digests.py`` says which of them changed since they were recorded; ``--record [NAME ...]``
records them. Code is followed definition by definition (a function, a class with its methods, a constant of a module),
so that an edit concerns those that use it and no others. Where a name cannot be followed its whole module counts.
A registry is not followed: what it names are parts, each with a version and a digest of its own (headsr.parts).
"""

from __future__ import annotations

import argparse
import ast
import copy
import hashlib
import io
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path

from headsr.recipes import DATA, METHODS, MODELS, every_part
from headsr.stages import STAGE_VERSIONS

ROOT = Path(__file__).resolve().parents[2]
RECORD = Path(__file__).with_suffix(".json")
# No result depends on these: they open logs, record where a result came from, and hold the versions themselves.
LEFT_OUT = {"headsr.jobs", "headsr.stages", "headsr.parts"}
# The tables of kinds in headsr.recipes. A kind's class belongs to its part: what a key is where no recipe sets it, no
# params say.
KINDS = {"MODELS", "DATA", "METHODS"}
# Called while a module is imported, these act on what they make alone. Anything else called there may register
# something elsewhere, so it counts for everyone who imports the module.
HARMLESS = {
    "Column", "ForMachine", "ForPeople", "Part", "Path", "TypeVar", "cache", "cached_property", "classmethod",
    "contextlib.contextmanager", "contextmanager", "dataclass", "dict", "field", "fields", "logging.getLogger",
    "lru_cache", "np.diag", "np.log", "np.sqrt", "property", "re.compile", "sorted", "staticmethod",
    "torch.no_grad", "tuple",
}  # fmt: skip
HARMLESS_METHODS = {"format", "items", "join", "keys", "values"}  # of texts and tables
# Code that uses a class or a module without writing its name: no reach could be promised, so it is refused.
# (sys.modules["__main__"] is put aside where processes are started: nothing is imported through it.)
NOT_FOLLOWED = re.compile(
    r"\b(__import__|import_module|__subclasses__|__init_subclass__|__set_name__|globals\()"
    r"|\b(sys\.modules)(?!\[.__main__)|^\s*from \.",
    re.MULTILINE,
)
WHOLE, ON_IMPORT = "*", ""  # in the place of a name: all of a module, and only what importing it runs
Place = tuple[str, str]  # a module, and a name in it
WAYS_OUT = """
Could results differ? Raise the number: a stage's in src/headsr/stages.py, that of a part (network.rrdb) in its line of
src/headsr/parts.py, that of a kind (task, data, method) in its class in src/headsr/recipes. What uses it is computed
again, and what follows. Are they the same? Leave the number. Then, either way: make versions (ARGS='fit_field loss.l1'
for some only), and commit tests/unit/stage_digests.json together with the change."""


@dataclass(frozen=True)
class Versioned:
    """A stage or a part: its version, and the places where what it computes begins."""

    version: int
    begins: Set[Place]


def versioned() -> dict[str, Versioned]:
    """Every stage and every part of this checkout, by the name that params carry."""
    found = {stage: Versioned(version, {(stage, WHOLE)}) for stage, version in STAGE_VERSIONS.items()}
    tables = {"task": MODELS, "data": DATA, "method": METHODS}
    recipes = {f"{family}.{kind}": one for family, table in tables.items() for kind, one in table.items()}
    for name, part in every_part().items():
        module, _, code = part.place.rpartition(".")
        recipe = {(one.__module__, one.__name__)} if (one := recipes.get(name)) else set()
        found[name] = Versioned(part.version, {(module, code), *recipe})
    return found


@dataclass(frozen=True)
class Statement:
    """One top-level statement: what it says, and the places that it may use."""

    digest: str
    uses: frozenset[Place]


class Code:
    """The code of a checkout at ``root``: the scripts of its stages, and the package."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._modules: dict[str, dict[str, list[Statement]]] = {}

    def pieces(self, begins: Set[Place]) -> dict[str, str]:
        """The digest of every definition that can be reached from some places, by its full name.

        Raises ValueError for a place that is not there, and for code that cannot be followed.
        """
        if missing := {(module, name) for module, name in begins if name not in {WHOLE, *self._statements(module)}}:
            raise ValueError(f"there is no {', '.join(map('.'.join, sorted(missing)))}")
        found: dict[str, str] = {}
        todo, seen = set(begins), set()
        while todo:
            module, name = place = todo.pop()
            statements = self._statements(module)
            if name == WHOLE:
                new = {(module, one) for one in statements} | {(one, WHOLE) for one in self._inside(module)}
            elif name in statements:
                if said := "".join(one.digest for one in statements[name]):
                    found[f"{module}.{name or '<on import>'}"] = _sha256(said)
                new = {(module, ON_IMPORT)}.union(*(one.uses for one in statements[name]))
            elif (file := self._path(module).parent / name).is_file():
                found[str(file.relative_to(self.root))] = _sha256(file.read_bytes())
                new = set()
            else:  # a module of this package, or a name that a condition or a star import binds
                new = {(f"{module}.{name}" if self._path(f"{module}.{name}") else module, WHOLE)}
            seen.add(place)
            todo |= {one for one in new - seen if not _is_left_out(one)}
        return found

    def _statements(self, module: str) -> dict[str, list[Statement]]:
        """A module's statements by the names that they bind; under ON_IMPORT what importing it runs."""
        if module in self._modules:
            return self._modules[module]
        path, package = self._path(module), module.rpartition(".")[0]
        if path is None:
            raise ValueError(f"{module}: there is no such module under {self.root}")
        if refused := NOT_FOLLOWED.search(text := path.read_text()):
            raise ValueError(f"{path}: {refused[0].strip()!r} is nothing that tests/unit/stage_digests.py can follow")
        nodes = [one for node in _Meaning().visit(ast.parse(text)).body for one in _single(node)]
        known = {name for one in nodes for name in _binds(one)}
        known |= {file.name for file in path.parent.iterdir() if file.is_file()}
        modules = {name: bound for one in nodes for name, bound in self._binds_module(one)}
        found = {ON_IMPORT: [Statement("", frozenset({(package, ON_IMPORT)} if package else ()))]}
        for one in nodes:
            statement = Statement(_sha256(_text(one)), frozenset(self._uses(one, module, known, modules)))
            for name in _binds(one):
                found.setdefault(name, []).append(statement)
            if isinstance(one, ast.Import | ast.ImportFrom):
                entered = {source for source, _ in statement.uses} | {bound for _, bound in self._binds_module(one)}
                found[ON_IMPORT].append(Statement("", frozenset((source, ON_IMPORT) for source in entered)))
            if not _binds(one) or _acts(one):
                found[ON_IMPORT].append(statement)
        return self._modules.setdefault(module, found)

    def _uses(self, statement: ast.stmt, module: str, known: set[str], modules: Mapping[str, str]) -> Iterator[Place]:
        """The places that a statement names; a local variable counts as the definition that it is named like."""
        followed: set[ast.AST] = set()
        if any(self._binds_module(statement)):
            return  # what is used of that module is said where its name is used
        for node in ast.walk(statement):
            if isinstance(node, ast.Import):
                yield from ((alias.name, WHOLE) for alias in node.names if self._path(alias.name))
            elif isinstance(node, ast.ImportFrom) and self._path(node.module):
                yield from ((node.module, alias.name) for alias in node.names)
            elif isinstance(node, ast.Attribute) and getattr(node.value, "id", None) in modules:
                yield modules[node.value.id], node.attr
                yield module, node.value.id
                followed.add(node.value)
            elif isinstance(node, ast.Name) and node.id in known and node not in followed:
                yield module, node.id
                if node.id in modules:
                    yield modules[node.id], WHOLE
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                if node.value in known:  # a template in the module's folder, or a name in quotes
                    yield module, node.value
                # A module's name in a string is how a child process is told what to run.
                yield from ((name, WHOLE) for name in re.findall(r"headsr(?:\.\w+)+", node.value) if self._path(name))

    def _binds_module(self, statement: ast.stmt) -> Iterator[tuple[str, str]]:
        """The name and the module where a top-level import binds a module of headsr as such."""
        for alias in statement.names if isinstance(statement, ast.Import | ast.ImportFrom) else ():
            full = f"{statement.module}.{alias.name}" if isinstance(statement, ast.ImportFrom) else alias.name
            # Of ``import headsr.volumes`` the name is headsr: its use would not say which module is meant.
            if self._path(full) and (isinstance(statement, ast.ImportFrom) or alias.asname or "." not in full):
                yield alias.asname or alias.name, full

    def _inside(self, package: str) -> list[str]:
        """The modules in a package."""
        path = self._path(package)
        files = path.parent.iterdir() if path.name == "__init__.py" else ()
        return [name for file in files if file != path and self._path(name := f"{package}.{file.stem}")]

    def _path(self, module: str) -> Path | None:
        inside = self.root / "src" / Path(*module.split("."))
        files = (inside.with_suffix(".py"), inside / "__init__.py", self.root / "workflow" / "scripts" / f"{module}.py")
        return next((file for file in files if file.is_file()), None)


def _is_left_out(place: Place) -> bool:
    """Whether a place decides nothing, or is a table of parts."""
    module, name = place
    return module in LEFT_OUT or (f"{module}.".startswith("headsr.recipes.") and name in KINDS)


class _Meaning(ast.NodeTransformer):
    """Takes away what changes no result, and what the line of a part says.

    The first are docstrings, annotations of functions, imports for type checkers only, and the marks of a recipe's keys
    (which refuse or explain a value); the second are place and version.
    """

    def visit_Module(self, node: ast.Module) -> ast.AST:
        imports = (one for one in ast.walk(node) if isinstance(one, ast.ImportFrom) and one.module == "headsr.parts")
        self.parts = {alias.asname or alias.name for one in imports for alias in one.names}
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if getattr(node.func, "id", None) in self.parts:
            node.args, node.keywords = [], []
        return self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        is_marked = ast.unparse(node.value) == "Annotated"
        return self.visit(node.slice.elts[0]) if is_marked else self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        return None if isinstance(node.value, ast.Constant) else self.generic_visit(node)

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.AST]:
        self.generic_visit(node)
        return node.orelse if ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING") else node

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node


def _single(statement: ast.stmt) -> Iterator[ast.stmt]:
    """The statement, or one import for each name of a longer one."""
    if not isinstance(statement, ast.Import | ast.ImportFrom):
        yield statement
        return
    for alias in statement.names:
        one = copy.copy(statement)
        one.names = [alias]
        yield one


def _binds(statement: ast.stmt) -> set[str]:
    """The names that a statement defines if that is all it does, else none."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {statement.name}
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name.split(".")[0] for alias in statement.names} - {"*"}
    targets = getattr(statement, "targets", None) or [getattr(statement, "target", None)]
    is_constant = isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign)
    simple = is_constant and all(isinstance(target, ast.Name) for target in targets)
    return {target.id for target in targets} if simple else set()


def _calls(node: ast.AST) -> set[str]:
    """What Python calls when it comes to a node: calls and decorators, but no annotation, nothing inside a function."""
    names = {ast.unparse(node.func)} if isinstance(node, ast.Call) else set()
    names |= {ast.unparse(getattr(one, "func", one)) for one in getattr(node, "decorator_list", ())}
    is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    inside = [node.args] if is_function else ast.iter_child_nodes(node)
    return names.union(*(_calls(one) for one in inside if one is not getattr(node, "annotation", None)))


def _acts(statement: ast.stmt) -> bool:
    """Whether running a statement may do more than make what it binds."""
    called = _calls(statement) - HARMLESS
    return any(name.rpartition(".")[2] not in HARMLESS_METHODS for name in called)


def _text(node: object) -> str:
    """A syntax tree as text. Python's own dump of the same code differs between versions: empty fields come and go."""
    if isinstance(node, ast.AST):
        fields = (f"{key}={_text(value)}" for key, value in ast.iter_fields(node) if value not in (None, []))
        return f"{type(node).__name__}({', '.join(fields)})"
    return f"[{', '.join(map(_text, node))}]" if isinstance(node, list) else ascii(node)


def _sha256(content: str | bytes) -> str:
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def digest_of(pieces: Mapping[str, str]) -> str:
    """One digest of all the pieces of a stage or a part."""
    return _sha256(json.dumps(pieces, sort_keys=True))


def undecided(code: Code, now: Mapping[str, Versioned], recorded: Mapping[str, dict]) -> dict[str, str]:
    """What is to be decided or recorded, name by name; nothing where record and code agree."""
    found = {name: "is no more: record" for name in recorded.keys() - now.keys()}
    found |= {name: what for name, one in now.items() if (what := _undecided(code, one, recorded.get(name)))}
    return dict(sorted(found.items()))


def _undecided(code: Code, one: Versioned, was: Mapping | None) -> str:
    if was is None:
        return "is new: record"
    if one.version < was["version"]:
        return f"its version went down from {was['version']} to {one.version}, where it stood for other code"
    if one.version > was["version"]:
        return f"its version is {one.version} now, {was['version']} is recorded: record"
    return "" if digest_of(code.pieces(one.begins)) == was["digest"] else "its code changed: decide, then record"


def record(
    code: Code, now: Mapping[str, Versioned], recorded: Mapping[str, dict], names: Iterable[str] = ()
) -> dict[str, dict]:
    """The record after ``names`` (all if none is given) were decided. No version may go down."""
    chosen = set(names) or now.keys() | recorded.keys()
    if unknown := chosen - now.keys() - recorded.keys():
        raise SystemExit(f"no stage or part: {', '.join(sorted(unknown))}")
    kept = {name: was for name, was in recorded.items() if name not in chosen}
    for name in chosen & now.keys():
        if name in recorded and now[name].version < recorded[name]["version"]:
            raise SystemExit(f"{name}: a version never goes down")
        kept[name] = {"version": now[name].version, "digest": digest_of(code.pieces(now[name].begins))}
    return dict(sorted(kept.items()))


def read_record() -> dict[str, dict]:
    """The recorded version and digest of every stage and part."""
    return json.loads(RECORD.read_text()) if RECORD.exists() else {}


def write_record(recorded: Mapping[str, dict]) -> None:
    """Write the record with a line for each stage and part, so that a diff is the list of what was decided."""
    lines = [f"  {json.dumps(name)}: {json.dumps(was)}" for name, was in recorded.items()]
    RECORD.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def explain(code: Code, now: Mapping[str, Versioned], found: Mapping[str, str], recorded: Mapping[str, dict]) -> str:
    """What is undecided, with the definitions that changed where git knows the recorded code, and the two ways out."""
    with tempfile.TemporaryDirectory() as folder:
        before = _last_recorded(Path(folder))
        differences = {name: _changed(now[name], code, before, recorded.get(name)) for name in found if name in now}
    return "\n".join([*(f"{name}: {what}{differences.get(name, '')}" for name, what in found.items()), WAYS_OUT])


def _changed(one: Versioned, code: Code, before: Code | None, was: Mapping | None) -> str:
    """The definitions by which the code differs from the recorded code, if ``before`` is that."""
    if before is None or was is None:
        return ""
    try:
        old, new = before.pieces(one.begins), code.pieces(one.begins)
    except ValueError:  # it begins elsewhere in one of the two
        return ""
    names = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    return f"\n    {', '.join(names)}" if digest_of(old) == was["digest"] else ""


def _last_recorded(folder: Path) -> Code | None:
    """The code of the commit that last changed the record, if there is one."""
    log = ["git", "-C", str(ROOT), "log", "-1", "--format=%H", "--", str(RECORD)]
    commit = subprocess.run(log, capture_output=True, text=True).stdout.strip()
    archive = ["git", "-C", str(ROOT), "archive", "--format=zip", commit or "none", "src/headsr", "workflow/scripts"]
    content = subprocess.run(archive, capture_output=True).stdout
    if content:
        zipfile.ZipFile(io.BytesIO(content)).extractall(folder)
    return Code(folder) if content else None


def main() -> None:
    """Say what is undecided, or record it."""
    parser = argparse.ArgumentParser(description="What changed since somebody decided whether results did.")
    parser.add_argument(
        "--record", nargs="*", metavar="NAME", help="record these stages and parts, or all, as they are"
    )
    asked, code, now, recorded = parser.parse_args().record, Code(ROOT), versioned(), read_record()
    found = undecided(code, now, recorded)
    if asked is None:
        sys.exit(explain(code, now, found, recorded) if found else 0)
    new = record(code, now, recorded, asked)
    write_record(new)
    for name in found.keys() - undecided(code, now, new).keys():
        same = name in recorded and name in new and recorded[name]["version"] == new[name]["version"]
        print(f"{name}: recorded" + (", its results taken as the same" if same else ""))


if __name__ == "__main__":
    main()
