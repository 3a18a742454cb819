"""Who may import whom, and what nobody may do (docs/decisions.md)."""

import ast
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "headsr"
STANDARD_ALONE = ("headsr.scans", "headsr.labelmaps", "headsr.files", "headsr.parts", "headsr.words")
MODULES = {".".join(path.relative_to(SOURCE.parent).with_suffix("").parts): path for path in SOURCE.rglob("*.py")}

FROM_LIBRARIES = {
    "headsr.networks.patch_discriminator": {"monai"},
    "headsr.networks.diffusers_autoencoder": {"diffusers"},
}


def imported(path: Path) -> set[str]:
    """Every module that a file imports anywhere, except for types only."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(n) for block in ast.walk(tree) if is_for_types(block) for part in block.body for n in ast.walk(part)
    }
    names = set()
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def modules_of(package: str) -> dict[str, Path]:
    """The modules of a package, or the one of that name. There is one: a rule about nothing would never be broken."""
    found = {name: path for name, path in MODULES.items() if name.split(".")[1] == package}
    assert found, package
    return found


def is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


@pytest.mark.parametrize(
    "module", ["scans", "labelmaps", "annex", "words", "targets", "stages", "seeds", "files", "parts", "lock"]
)
def test_what_every_cluster_job_parses_needs_the_standard_library_only(module):
    for name in imported(SOURCE / f"{module}.py"):
        assert name.split(".")[0] in {*sys.stdlib_module_names, "headsr"}, name
        assert not name.startswith("headsr.") or name.startswith(STANDARD_ALONE), name


@pytest.mark.parametrize("package", ["networks", "losses"])
def test_networks_and_losses_know_tensors_only(package):
    for name, path in modules_of(package).items():
        outside = {n.split(".")[0] for n in imported(path)} - {*sys.stdlib_module_names, "torch", "headsr"}
        within = {".".join(n.split(".")[:2]) for n in imported(path) if n.startswith("headsr.")}
        assert outside <= FROM_LIBRARIES.get(name, set()), (name, outside)
        assert within <= {f"headsr.{package}", "headsr.parts"}, (name, within)


@pytest.mark.parametrize(("module", "libraries"), FROM_LIBRARIES.items())
def test_what_takes_seconds_is_imported_by_the_job_that_uses_it_alone(module, libraries):
    top = [
        node for node in ast.parse(MODULES[module].read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert not any(library in ast.unparse(node) for node in top for library in libraries)


def test_acquisition_knows_volumes_only():
    for name, path in modules_of("acquisition").items():
        within = {".".join(n.split(".")[:2]) for n in imported(path) if n.startswith("headsr.")}
        assert within <= {"headsr.acquisition", "headsr.volumes", "headsr.files", "headsr.typed_json"}, (name, within)


def test_no_modules_import_each_other_in_a_circle():
    named = {name.removesuffix(".__init__"): path for name, path in MODULES.items()}
    within = {name: {n for n in imported(path) if n in named} - {name, "headsr"} for name, path in named.items()}
    TopologicalSorter(within).prepare()  # a CycleError names the modules of the circle


@pytest.mark.parametrize(
    ("package", "others"),
    [
        ("fields", {"render", "inr", "training"}),
        ("render", {"inr", "training"}),
        ("inr", {"training"}),
        ("reconstruct", {"training"}),
        ("evaluate", {"training"}),
        ("weights", {"training"}),
        ("devices", {"training"}),
    ],
)
def test_what_uses_fields_and_models_does_not_know_how_they_are_made(package, others):
    for name, path in modules_of(package).items():
        assert not {n.split(".")[1] for n in imported(path) if n.startswith("headsr.")} & others, name


def test_nothing_imports_the_command_line():
    for name, path in MODULES.items():
        assert not any(n.startswith("headsr.cli") for n in imported(path)), name


def test_there_is_no_drawer_for_odds_and_ends():
    assert not {"utils", "helpers", "misc", "common"} & {path.stem for path in MODULES.values()}


def calls(path: Path) -> list[str]:
    return [ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]


# Of the files that others publish: tensors alone, which is what PyTorch unpickles with weights_only.
READS_CHECKPOINTS = {"headsr.models.checkpoint": {"torch.load"}}


def test_of_checkpoints_tensors_alone_are_unpickled():
    for name, allowed in READS_CHECKPOINTS.items():
        nodes = [node for node in ast.walk(ast.parse(MODULES[name].read_text())) if isinstance(node, ast.Call)]
        loads = [node for node in nodes if ast.unparse(node.func) in allowed]
        assert loads, name
        for node in loads:
            assert {one.arg: ast.unparse(one.value) for one in node.keywords}.get("weights_only") == "True", name


@pytest.mark.parametrize("name", sorted(MODULES))
def test_nothing_is_unpickled_or_evaluated(name):
    path = MODULES[name]
    assert not {"pickle", "torch.load", "joblib", "shelve"} & {n for n in imported(path)}
    unsafe = {"eval", "exec", "yaml.load", "yaml.unsafe_load", "os.system"}
    assert not ({*unsafe, "torch.load"} - READS_CHECKPOINTS.get(name, set())) & set(calls(path))
    assert "shell=True" not in path.read_text() and "allow_pickle=True" not in path.read_text()
