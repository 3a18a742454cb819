"""What every stage computes, as one digest of all the code that its script can reach.

``python tests/unit/stage_digests.py`` says which stages changed since they were recorded; ``--record [STAGE ...]``
records them. Code is followed definition by definition (a function, a class with its methods, a constant of a module),
so that an edit concerns the stages that use it and no others. Where a name cannot be followed its whole module counts.
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
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from headsr.stages import STAGE_VERSIONS

ROOT = Path(__file__).resolve().parents[2]
RECORD = Path(__file__).with_suffix(".json")
# No result depends on these: they open logs, record where a result came from, and hold the versions themselves.
LEFT_OUT = {"headsr.jobs", "headsr.stages"}
# Called while a module is imported, these act on what they make alone. Anything else called there may register
# something elsewhere, so it counts for every stage that imports the module.
HARMLESS = {
    "'|'.join", "classmethod", "contextlib.contextmanager", "contextmanager", "dataclass", "dict", "field", "fields",
    "logging.getLogger", "lru_cache", "np.diag", "np.log", "np.sqrt", "property", "re.compile", "sorted",
    "staticmethod", "torch.no_grad", "tuple", "TypeVar",
}  # fmt: skip
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
Could the results of a stage differ? Raise its number in src/headsr/stages.py: it is computed again, and what follows.
Are they the same? Leave the number. Then, either way: make stages (ARGS='fit_inr' for some stages only), and commit
tests/unit/stage_digests.json together with the change."""


@dataclass(frozen=True)
class Part:
    """One top-level statement: what it says, and the places that it may use."""

    digest: str
    uses: frozenset[Place]


class Code:
    """The code of a checkout at ``root``: the scripts of its stages and the package that they import."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._modules: dict[str, dict[str, list[Part]]] = {}

    def pieces(self, stage: str) -> dict[str, str]:
        """The digest of every definition that the script of ``stage`` can reach, by its full name."""
        found: dict[str, str] = {}
        todo, seen = {(stage, WHOLE)}, set()
        while todo:
            module, name = place = todo.pop()
            parts = self._parts(module)
            if name == WHOLE:
                new = {(module, one) for one in parts} | {(one, WHOLE) for one in self._inside(module)}
            elif name in parts:
                if said := "".join(part.digest for part in parts[name]):
                    found[f"{module}.{name or '<on import>'}"] = _sha256(said)
                new = {(module, ON_IMPORT)}.union(*(part.uses for part in parts[name]))
            elif (file := self._path(module).parent / name).is_file():
                found[str(file.relative_to(self.root))] = _sha256(file.read_bytes())
                new = set()
            else:  # a module of this package, or a name that a condition or a star import binds
                new = {(f"{module}.{name}" if self._path(f"{module}.{name}") else module, WHOLE)}
            seen.add(place)
            todo |= {one for one in new - seen if one[0] not in LEFT_OUT}
        return found

    def _parts(self, module: str) -> dict[str, list[Part]]:
        """A module's statements by the names that they bind; under ON_IMPORT what importing it runs."""
        if module in self._modules:
            return self._modules[module]
        path, package = self._path(module), module.rpartition(".")[0]
        if path is None:
            raise ValueError(f"{module}: there is no such module under {self.root}")
        if refused := NOT_FOLLOWED.search(text := path.read_text()):
            raise ValueError(f"{path}: {refused[0].strip()!r} is nothing that tests/unit/stage_digests.py can follow")
        statements = [one for statement in _Meaning().visit(ast.parse(text)).body for one in _single(statement)]
        known = {name for one in statements for name in _binds(one)}
        known |= {file.name for file in path.parent.iterdir() if file.is_file()}
        modules = {name: bound for one in statements for name, bound in self._binds_module(one)}
        parts = {ON_IMPORT: [Part("", frozenset({(package, ON_IMPORT)} if package else ()))]}
        for one in statements:
            part = Part(_sha256(_text(one)), frozenset(self._uses(one, module, known, modules)))
            for name in _binds(one):
                parts.setdefault(name, []).append(part)
            if isinstance(one, ast.Import | ast.ImportFrom):
                entered = {source for source, _ in part.uses} | {bound for _, bound in self._binds_module(one)}
                parts[ON_IMPORT].append(Part("", frozenset((source, ON_IMPORT) for source in entered)))
            if not _binds(one) or _calls(one) - HARMLESS:
                parts[ON_IMPORT].append(part)
        return self._modules.setdefault(module, parts)

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


class _Meaning(ast.NodeTransformer):
    """Takes away what changes no result: docstrings, annotations of functions, imports for type checkers only."""

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
    """What Python calls when it comes to a node: calls and decorators, but nothing inside a function."""
    names = {ast.unparse(node.func)} if isinstance(node, ast.Call) else set()
    names |= {ast.unparse(getattr(one, "func", one)) for one in getattr(node, "decorator_list", ())}
    is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    return names.union(*map(_calls, [node.args] if is_function else ast.iter_child_nodes(node)))


def _text(node: object) -> str:
    """A syntax tree as text. Python's own dump of the same code differs between versions: empty fields come and go."""
    if isinstance(node, ast.AST):
        fields = (f"{key}={_text(value)}" for key, value in ast.iter_fields(node) if value not in (None, []))
        return f"{type(node).__name__}({', '.join(fields)})"
    return f"[{', '.join(map(_text, node))}]" if isinstance(node, list) else ascii(node)


def _sha256(content: str | bytes) -> str:
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def digest_of(pieces: Mapping[str, str]) -> str:
    """One digest of all the pieces of a stage."""
    return _sha256(json.dumps(pieces, sort_keys=True))


def undecided(code: Code, versions: Mapping[str, int], recorded: Mapping[str, dict]) -> dict[str, str]:
    """What is to be decided or recorded, stage by stage; nothing where record and code agree."""
    found = {stage: "is no stage any more: record" for stage in recorded.keys() - versions.keys()}
    for stage, version in versions.items():
        was = recorded.get(stage)
        if was is None:
            found[stage] = "is a new stage: record"
        elif version < was["version"]:
            found[stage] = f"its version went down from {was['version']} to {version}, where it stood for other code"
        elif version > was["version"]:
            found[stage] = f"its version is {version} now, {was['version']} is recorded: record"
        elif digest_of(code.pieces(stage)) != was["digest"]:
            found[stage] = "its code changed: decide, then record"
    return dict(sorted(found.items()))


def record(
    code: Code, versions: Mapping[str, int], recorded: Mapping[str, dict], stages: Iterable[str] = ()
) -> dict[str, dict]:
    """The record after ``stages`` (all of them if none is named) were decided. No version may go down."""
    chosen = set(stages) or versions.keys() | recorded.keys()
    if unknown := chosen - versions.keys() - recorded.keys():
        raise SystemExit(f"no stage: {', '.join(sorted(unknown))}")
    kept = {stage: was for stage, was in recorded.items() if stage not in chosen}
    for stage in chosen & versions.keys():
        if stage in recorded and versions[stage] < recorded[stage]["version"]:
            raise SystemExit(f"{stage}: a version never goes down")
        kept[stage] = {"version": versions[stage], "digest": digest_of(code.pieces(stage))}
    return dict(sorted(kept.items()))


def read_record() -> dict[str, dict]:
    """The recorded version and digest of every stage."""
    return json.loads(RECORD.read_text()) if RECORD.exists() else {}


def write_record(recorded: Mapping[str, dict]) -> None:
    """Write the record with a line for each stage, so that a diff is the list of the stages that were decided."""
    lines = [f"  {json.dumps(stage)}: {json.dumps(was)}" for stage, was in recorded.items()]
    RECORD.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def explain(code: Code, found: Mapping[str, str], recorded: Mapping[str, dict]) -> str:
    """What is undecided, with the definitions that changed where git knows the recorded code, and the two ways out."""
    with tempfile.TemporaryDirectory() as folder:
        before = _last_recorded(Path(folder))
        lines = [f"{stage}: {what}{_changed(stage, code, before, recorded)}" for stage, what in found.items()]
    return "\n".join([*lines, WAYS_OUT])


def _changed(stage: str, code: Code, before: Code | None, recorded: Mapping[str, dict]) -> str:
    """The definitions by which the code of a stage differs from the recorded code, if ``before`` is that."""
    if before is None:
        return ""
    try:
        old, new = before.pieces(stage), code.pieces(stage)
    except ValueError:  # the stage is not in one of the two
        return ""
    names = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    return f"\n    {', '.join(names)}" if digest_of(old) == recorded.get(stage, {}).get("digest") else ""


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
    parser = argparse.ArgumentParser(description="Which stages changed since somebody decided whether results did.")
    parser.add_argument("--record", nargs="*", metavar="STAGE", help="record these stages, or all, as they are now")
    asked, code, recorded = parser.parse_args().record, Code(ROOT), read_record()
    found = undecided(code, STAGE_VERSIONS, recorded)
    if asked is None:
        sys.exit(explain(code, found, recorded) if found else 0)
    new = record(code, STAGE_VERSIONS, recorded, asked)
    write_record(new)
    for stage in found.keys() - undecided(code, STAGE_VERSIONS, new).keys():
        same = stage in recorded and stage in new and recorded[stage]["version"] == new[stage]["version"]
        print(f"{stage}: recorded" + (", its results taken as the same" if same else ""))


if __name__ == "__main__":
    main()
