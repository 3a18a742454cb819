"""The guard: code of a stage or a part that changed fails here until somebody has decided whether its results did."""

import re
import shutil
from pathlib import Path

import pytest
import stage_digests
from stage_digests import (
    ROOT,
    WHOLE,
    Code,
    Versioned,
    digest_of,
    explain,
    read_record,
    record,
    undecided,
    versioned,
    write_record,
)

from headsr.stages import STAGE_VERSIONS

SCRIPTS = ROOT / "workflow" / "scripts"
RULES = "\n".join(path.read_text() for path in sorted((ROOT / "workflow" / "rules").glob("*.smk")))

# A package in small: three stages, a script in each, every way of using a module, and parts that recipes name.
SMALL = {
    "workflow/scripts/fit.py": """
        '''Fit.'''
        from headsr.jobs import job
        with job(snakemake):
            from headsr.fit import fit
            fit(snakemake.input.scan)
        """,
    "workflow/scripts/draw.py": """
        '''Draw.'''
        from headsr.jobs import job
        with job(snakemake):
            from headsr.evaluate.draw import draw
            draw(snakemake.input.scores)
        """,
    "src/headsr/__init__.py": "",
    "src/headsr/jobs.py": """
        from headsr.shared import unused
        def job(rule): return unused()
        """,
    "src/headsr/fit.py": """
        '''A module.'''
        from __future__ import annotations
        from typing import TYPE_CHECKING
        from math import pi
        from headsr import tools
        from headsr.shared import step as rate
        if TYPE_CHECKING:
            from headsr.evaluate.draw import draw
        ROUNDS = 3  # a comment
        def fit(scan: str) -> None:
            '''A function.'''
            for _ in range(ROUNDS):
                tools.move(scan, pi * rate())
            run(["python", "-m", "headsr.child"])
        def run(command):
            print(command)
        """,
    "src/headsr/tools.py": """
        from headsr.noise import *
        def move(scan, by): return Mover(by).moved(scan)
        def unused(): return 0
        class Mover:
            factor: int = 1
            def __init__(self, by): self.by = by
            def moved(self, scan): return self.factor * self.by
        """,
    "src/headsr/noise.py": "SIGMA = 0.1",
    "src/headsr/shared.py": """
        def step(): return 2
        def step_down(): return 4
        def unused(): return 0
        """,
    "src/headsr/child.py": "if __name__ == '__main__': print('child')",
    "src/headsr/evaluate/__init__.py": "",
    "src/headsr/evaluate/draw.py": """
        from headsr.evaluate import formats
        from headsr.shared import step
        def draw(scores):
            from headsr.evaluate import style
            return getattr(formats, style.KIND)(open('page.html'), step())
        """,
    "src/headsr/evaluate/style.py": "KIND = 'png'",
    "src/headsr/evaluate/formats.py": """
        def registered(function): return function
        @registered
        def png(page, step): return page
        """,
    "src/headsr/evaluate/page.html": "<html></html>",
    "workflow/scripts/train.py": """
        from headsr.jobs import job
        with job(snakemake):
            from headsr.recipes import ModelRecipe, build
            from headsr.train import train
            train(build(ModelRecipe, snakemake.params.recipe))
        """,
    "src/headsr/parts.py": """
        import importlib
        NETWORKS = {"edsr": Part("headsr.networks.edsr.EDSR"), "rrdb": Part("headsr.networks.rrdb.RRDB", version=2)}
        def load(part): return importlib.import_module(part)
        """,
    "src/headsr/train.py": """
        from headsr.parts import NETWORKS
        def train(recipe): return type(recipe).part.load()(NETWORKS[recipe.network].load())
        """,
    "src/headsr/tasks.py": """
        from headsr.recipes import Plain
        def plain(network): return network
        def adversarial(network): return -network
        """,
    "src/headsr/recipes/__init__.py": """
        from headsr.recipes.convert import build
        from headsr.recipes.models import MODELS, ModelRecipe
        """,
    "src/headsr/recipes/convert.py": """
        class Doc: pass
        class Range: pass
        class Kinds: pass
        def build(hint, block): return hint(**block)
        """,
    "src/headsr/recipes/models.py": """
        from __future__ import annotations
        from headsr.parts import Part
        from headsr.recipes.convert import Doc, Kinds, Range
        Rate = Annotated[float, Range(0, 1)]
        @dataclass(frozen=True)
        class Model:
            part: ClassVar[Part]
            rate: Annotated[Rate, Doc('How fast.')] = 0.1
        @dataclass(frozen=True)
        class Plain(Model):
            part: ClassVar[Part] = Part('headsr.tasks.plain')
            rounds: Annotated[int, Range(1, 9), Doc('How often.')] = 3
        @dataclass(frozen=True)
        class Adversarial(Model):
            part: ClassVar[Part] = Part('headsr.tasks.adversarial')
        MODELS = {'plain': Plain, 'adversarial': Adversarial}
        ModelRecipe = Annotated[Model, Kinds(MODELS)]
        """,
    "src/headsr/networks/__init__.py": "",
    "src/headsr/networks/blocks.py": "class Block: width = 64",
    "src/headsr/networks/edsr.py": """
        from headsr.networks.blocks import Block
        class EDSR:
            def __init__(self): self.body = [Block()] * 16
        """,
    "src/headsr/networks/rrdb.py": """
        from headsr.networks.blocks import Block
        class RRDB:
            def __init__(self): self.body = [Block()] * 23
        """,
    "src/headsr/networks/unet.py": "class UNet: depth = 4",
}
STAGES = {stage: Versioned(1, {(stage, WHOLE)}) for stage in ("fit", "draw", "train")}
PARTS = {
    "network.edsr": Versioned(1, {("headsr.networks.edsr", "EDSR")}),
    "network.rrdb": Versioned(2, {("headsr.networks.rrdb", "RRDB")}),
    "network.unet": Versioned(1, {("headsr.networks.unet", "UNet")}),
    "task.plain": Versioned(1, {("headsr.tasks", "plain"), ("headsr.recipes.models", "Plain")}),
    "task.adversarial": Versioned(1, {("headsr.tasks", "adversarial"), ("headsr.recipes.models", "Adversarial")}),
}


@pytest.fixture
def small(tmp_path) -> Path:
    for name, text in SMALL.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(re.sub(r"^ {8}", "", text, flags=re.M).lstrip("\n"))
    return tmp_path


def digests(root: Path, of: dict[str, Versioned] = STAGES | PARTS) -> dict[str, str]:
    code = Code(root)
    return {name: digest_of(code.pieces(one.begins)) for name, one in of.items()}


def versions(**numbers: int) -> dict[str, Versioned]:
    return {stage: Versioned(number, STAGES[stage].begins) for stage, number in numbers.items()}


def edit(path: Path, old: str, new: str) -> None:
    assert old in path.read_text(), f"{path.name} has no {old!r} any more: choose another edit for this test"
    path.write_text(path.read_text().replace(old, new, 1))


def test_every_stage_and_every_part_was_decided():
    code, now, recorded = Code(ROOT), versioned(), read_record()
    if found := undecided(code, now, recorded):
        pytest.fail(explain(code, now, found, recorded), pytrace=False)


def test_a_stage_is_a_script_is_a_rule():
    assert STAGE_VERSIONS.keys() == {path.stem for path in SCRIPTS.glob("*.py")}
    for stage in STAGE_VERSIONS:
        (body,) = re.findall(rf"^rule {stage}:\n((?:[ \t].*\n|\n)*)", RULES, re.M)
        assert re.search(
            rf'^    params:\n(?: {{8}}.*\n)*? {{8}}stage=.*\b(?:\w+_)?versions(?:_\w+)?\(\s*"{stage}"', body, re.M
        ), stage
        assert f'"../scripts/{stage}.py"' in body, stage


def test_every_file_of_the_package_that_is_not_python_belongs_to_a_stage_or_a_part():
    code = Code(ROOT)
    followed = {name for one in versioned().values() for name in code.pieces(one.begins)}
    package = ROOT / "src" / "headsr"
    files = {path for path in package.rglob("*.*") if path.suffix not in (".py", ".pyc")}
    # Pages that show results and make none.
    files -= {*(package / "view" / "page").iterdir(), package / "sr" / "page.html.j2"}
    # Weights and tables of labels are tracked by their hash in what uses them (recipes.shipped, anatomies.smk).
    files -= {*(package / "models").iterdir(), *(package / "simulate" / "tables").iterdir()}
    assert {str(path.relative_to(ROOT)) for path in files} <= followed


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("fit.py", "  # a comment", ""),
        ("fit.py", "'''A function.'''", "'''Renamed.'''"),
        ("fit.py", "'''A module.'''\n", ""),
        ("fit.py", "(scan: str) -> None", "(scan: Path)"),
        ("fit.py", "    from headsr.evaluate.draw import draw", "    from headsr.evaluate.draw import Drawing"),
        ("fit.py", "from typing", "\n\nfrom typing"),
        ("tools.py", "unused(): return 0", "unused(): return 1"),
        ("shared.py", "unused(): return 0", "unused(): return 1"),
        ("jobs.py", "unused()", "unused() or 1"),
        ("parts.py", "version=2", "version=3"),
        ("parts.py", "def load(part): return", "def load(part): return part and"),
        ("recipes/models.py", "'headsr.tasks.plain'", "'headsr.tasks.plain', 2"),
        ("recipes/models.py", "Doc('How often.')", "Doc('How many times.')"),
        ("recipes/models.py", "Range(1, 9)", "Range(1, 99)"),
        ("recipes/models.py", "Rate = Annotated[float, Range(0, 1)]", "Rate = Annotated[float, Range(0, 2)]"),
        ("recipes/convert.py", "class Doc: pass", "class Doc: text = ''"),
    ],
)
def test_an_edit_that_changes_no_result_changes_no_digest(small, name, old, new):
    before = digests(small)
    edit(small / "src" / "headsr" / name, old, new)
    assert digests(small) == before


@pytest.mark.parametrize(
    ("name", "old", "new", "reached"),
    [
        ("fit.py", "ROUNDS = 3", "ROUNDS = 4", {"fit"}),
        ("fit.py", "from math import pi", "from math import tau as pi", {"fit"}),
        ("fit.py", "import step as rate", "import step_down as rate", {"fit"}),
        ("fit.py", "import step as rate", "import step as rate; limit(1)", {"fit"}),
        ("tools.py", "Mover(by)", "Mover(-by)", {"fit"}),
        ("tools.py", "factor: int = 1", "factor: int = 2", {"fit"}),
        ("noise.py", "0.1", "0.2", {"fit"}),
        ("child.py", "'child'", "'grandchild'", {"fit"}),
        ("shared.py", "step(): return 2", "step(): return 3", {"fit", "draw"}),
        ("evaluate/__init__.py", "", "import os; os.nice(1)", {"draw"}),
        ("evaluate/style.py", "'png'", "'svg'", {"draw"}),
        ("evaluate/formats.py", "return page", "return page.read()", {"draw"}),
        ("evaluate/page.html", "<html>", "<html lang='en'>", {"draw"}),
        ("train.py", "(NETWORKS[", "(-NETWORKS[", {"train"}),
        ("networks/edsr.py", "16", "32", {"network.edsr"}),
        ("networks/blocks.py", "64", "32", {"network.edsr", "network.rrdb"}),
        ("tasks.py", "return -network", "return 1 - network", {"task.adversarial"}),
        ("recipes/models.py", "] = 3", "] = 4", {"task.plain"}),
        ("recipes/models.py", "Annotated[int, ", "Annotated[float, ", {"task.plain"}),
        ("recipes/models.py", "] = 0.1", "] = 0.2", {"train", "task.plain", "task.adversarial"}),
        ("recipes/convert.py", "(**block)", "(block)", {"train"}),
    ],
)
def test_an_edit_that_may_change_results_changes_the_stages_and_parts_that_reach_it(small, name, old, new, reached):
    before = digests(small)
    edit(small / "src" / "headsr" / name, old, new)
    after = digests(small)
    assert {one for one in before if before[one] != after[one]} == reached


def test_a_new_network_concerns_itself_alone(small):
    before, networks = digests(small), small / "src/headsr/networks"
    edit(small / "src/headsr/parts.py", "NETWORKS = {", 'NETWORKS = {"rcan": Part("headsr.networks.rcan.RCAN"), ')
    (networks / "rcan.py").write_text((networks / "edsr.py").read_text().replace("EDSR", "RCAN"))
    rcan = {"network.rcan": Versioned(1, {("headsr.networks.rcan", "RCAN")})}
    assert digests(small) == before and digests(small, rcan)["network.rcan"] not in before.values()


def test_a_new_kind_concerns_itself_alone(small):
    before, models = digests(small), small / "src/headsr/recipes/models.py"
    edit(models, "MODELS = {", "class Student(Model):\n    part = Part('headsr.tasks.student')\nMODELS = {")
    edit(models, "MODELS = {", "MODELS = {'student': Student, ")
    edit(small / "src/headsr/recipes/__init__.py", "MODELS, ", "MODELS, Student, ")
    (small / "src/headsr/tasks.py").write_text((small / "src/headsr/tasks.py").read_text() + "def student(): pass\n")
    assert digests(small) == before


def test_a_part_that_is_elsewhere_now_is_another_part(small):
    (small / "src/headsr/other.py").write_text((small / "src/headsr/networks/unet.py").read_text())
    moved = {"network.unet": Versioned(1, {("headsr.other", "UNet")})}
    assert digests(small, moved)["network.unet"] != digests(small)["network.unet"]


def test_a_part_without_code_is_refused_by_name(small):
    with pytest.raises(ValueError, match=r"there is no headsr\.networks\.edsr\.RCAN"):
        Code(small).pieces({("headsr.networks.edsr", "RCAN")})


def test_a_stage_that_builds_any_recipe_reaches_no_kind():
    code = Code(ROOT)
    kinds = {f"{module}.{name}" for one in versioned().values() for module, name in one.begins if "recipes" in module}
    building = code.pieces({("headsr.recipes", "ModelRecipe"), ("headsr.recipes", "MethodRecipe")})
    assert "headsr.recipes.models.Model" in building and kinds and not kinds & building.keys()
    assert not {name for name in building if name.endswith("<on import>")}


def test_what_importing_a_module_calls_counts_for_everyone_who_imports_it(small):
    edit(small / "src/headsr/fit.py", "from math", "from headsr.evaluate.formats import registered\nfrom math")
    before = digests(small)
    edit(small / "src/headsr/evaluate/formats.py", "return page", "return page.read()")
    assert digests(small)["fit"] != before["fit"]


@pytest.mark.parametrize("line", ["import_module('headsr.fit')", "globals()['fit']()", "from . import fit"])
def test_code_that_cannot_be_followed_is_refused(small, line):
    (small / "src/headsr/shared.py").write_text(f"{line}\n")
    with pytest.raises(ValueError, match=r"shared\.py.* is nothing that .* can follow"):
        digests(small)


@pytest.fixture
def real(tmp_path) -> Path:
    """A copy of this checkout's code."""
    for folder in ("src/headsr", "workflow/scripts"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_comments_and_docstrings_of_the_real_code_change_nothing(real):
    before = digests(real, versioned())
    for path in real.rglob("*.py"):
        path.write_text("# A comment.\n" + path.read_text().replace('"""', '"""Renamed: ', 1))
    assert digests(real, versioned()) == before


@pytest.mark.parametrize(
    ("name", "old", "new", "changed", "same"),
    [
        ("acquisition/operator.py", "atol=1e-6", "atol=1e-5", "fit_field", "make_table"),
        ("reconstruct/projected.py", "not np.isfinite", "np.isnan", "reconstruct_volume", "render_volume"),
        ("preprocess/ants_process.py", "ANTS_RANDOM_SEED", "ANTS_SEED", "correct_bias", "mask_head"),
        ("evaluate/report.html.j2", "<html", "<HTML", "write_report", "make_table"),
        (
            "networks/residual2d.py",
            "def forward(self, ",
            "def forward(self, _, ",
            "network.residual2d",
            "network.unet2d",
        ),
        ("volumes.py", "def cell_matrix(", "def cell_matrix(_, ", "correct_bias", "make_table"),
    ],
)
def test_an_edit_of_the_real_code_concerns_those_that_use_it(real, name, old, new, changed, same):
    two = {one: versioned()[one] for one in (changed, same)}
    before = digests(real, two)
    edit(real / "src" / "headsr" / name, old, new)
    after = digests(real, two)
    assert after[changed] != before[changed] and after[same] == before[same]


def test_a_change_is_undecided_until_it_is_recorded(small):
    now = versions(fit=1, draw=2)
    recorded = record(Code(small), now, {})
    assert undecided(Code(small), now, recorded) == {}
    edit(small / "src/headsr/fit.py", "ROUNDS = 3", "ROUNDS = 4")
    assert list(undecided(Code(small), now, recorded)) == ["fit"]

    same_results = record(Code(small), now, recorded, ["fit"])
    assert undecided(Code(small), now, same_results) == {}
    assert same_results["draw"] == recorded["draw"]

    bumped = versions(fit=2, draw=2)
    assert "record" in undecided(Code(small), bumped, recorded)["fit"]
    assert undecided(Code(small), bumped, record(Code(small), bumped, recorded)) == {}


def test_a_version_never_goes_down(small):
    recorded, lowered = record(Code(small), versions(fit=2, draw=1), {}), versions(fit=1, draw=1)
    assert "went down from 2 to 1" in undecided(Code(small), lowered, recorded)["fit"]
    with pytest.raises(SystemExit, match="fit: a version never goes down"):
        record(Code(small), lowered, recorded)


def test_stages_and_parts_come_and_go(small):
    recorded = record(Code(small), versions(fit=1), {})
    unet = {"network.unet": PARTS["network.unet"]}
    assert undecided(Code(small), unet, recorded) == {"fit": "is no more: record", "network.unet": "is new: record"}
    assert list(record(Code(small), unet, recorded)) == ["network.unet"]
    with pytest.raises(SystemExit, match="no stage or part: sharpen"):
        record(Code(small), unet, recorded, ["sharpen"])


def test_the_record_has_one_line_for_each_stage_and_part(small, tmp_path, monkeypatch):
    monkeypatch.setattr(stage_digests, "RECORD", tmp_path / "record.json")
    recorded = record(Code(small), STAGES | PARTS, {})
    write_record(recorded)
    lines = (tmp_path / "record.json").read_text().splitlines()
    assert lines[0] == "{" and lines[-1] == "}"
    assert [line.split('"')[1] for line in lines[1:-1]] == sorted(STAGES | PARTS)
    assert read_record() == recorded


def test_the_failure_names_the_stage_the_definitions_and_the_ways_out(small, monkeypatch):
    now = STAGES | PARTS
    recorded = record(Code(small), now, {})
    shutil.copytree(small / "src", small / "before" / "src")
    shutil.copytree(small / "workflow", small / "before" / "workflow")
    monkeypatch.setattr(stage_digests, "_last_recorded", lambda folder: Code(small / "before"))
    edit(small / "src/headsr/fit.py", "ROUNDS = 3", "ROUNDS = 4")
    edit(small / "src/headsr/networks/edsr.py", "16", "32")
    said = explain(Code(small), now, undecided(Code(small), now, recorded), recorded)
    assert "fit: its code changed" in said and "\n    headsr.fit.ROUNDS\n" in said and "draw:" not in said
    assert "network.edsr: its code changed" in said and "\n    headsr.networks.edsr.EDSR\n" in said
    assert "src/headsr/stages.py" in said and "src/headsr/parts.py" in said and "make versions" in said
