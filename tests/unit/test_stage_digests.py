"""The guard: code of a stage that changed fails here until somebody has decided whether its results did."""

import re
import shutil
from pathlib import Path

import pytest
import stage_digests
from stage_digests import ROOT, Code, digest_of, explain, read_record, record, undecided, write_record

from headsr.stages import STAGE_VERSIONS

SCRIPTS = ROOT / "workflow" / "scripts"
RULES = "\n".join(path.read_text() for path in sorted((ROOT / "workflow" / "rules").glob("*.smk")))

# A package in small: two stages, a script in each, and every way of using a module.
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
}


@pytest.fixture
def small(tmp_path) -> Path:
    for name, text in SMALL.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(re.sub(r"^ {8}", "", text, flags=re.M).lstrip("\n"))
    return tmp_path


def digests(root: Path, stages=("fit", "draw")) -> dict[str, str]:
    code = Code(root)
    return {stage: digest_of(code.pieces(stage)) for stage in stages}


def edit(path: Path, old: str, new: str) -> None:
    assert old in path.read_text(), f"{path.name} has no {old!r} any more: choose another edit for this test"
    path.write_text(path.read_text().replace(old, new, 1))


def test_every_stage_was_decided():
    code, recorded = Code(ROOT), read_record()
    if found := undecided(code, STAGE_VERSIONS, recorded):
        pytest.fail(explain(code, found, recorded), pytrace=False)


def test_a_stage_is_a_script_is_a_rule():
    assert STAGE_VERSIONS.keys() == {path.stem for path in SCRIPTS.glob("*.py")}
    for stage in STAGE_VERSIONS:
        (body,) = re.findall(rf"^rule {stage}:\n((?:[ \t].*\n|\n)*)", RULES, re.M)
        assert re.search(rf'^    params:\n(?: {{8}}.*\n)*? {{8}}stage=STAGE_VERSIONS\["{stage}"\],$', body, re.M), stage
        assert f'"../scripts/{stage}.py"' in body, stage


def test_every_file_of_the_package_that_is_not_python_belongs_to_a_stage():
    code = Code(ROOT)
    followed = {name for stage in STAGE_VERSIONS for name in code.pieces(stage)}
    package = ROOT / "src" / "headsr"
    files = {path for path in package.rglob("*.*") if path.suffix not in (".py", ".pyc")}
    files -= set((package / "view" / "page").iterdir())  # shows results, makes none
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
    ],
)
def test_an_edit_that_changes_no_result_changes_no_digest(small, name, old, new):
    before = digests(small)
    edit(small / "src" / "headsr" / name, old, new)
    assert digests(small) == before


@pytest.mark.parametrize(
    ("name", "old", "new", "stages"),
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
    ],
)
def test_an_edit_that_may_change_results_changes_the_stages_that_reach_it(small, name, old, new, stages):
    before = digests(small)
    edit(small / "src" / "headsr" / name, old, new)
    after = digests(small)
    assert {stage for stage in before if before[stage] != after[stage]} == stages


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


def test_comments_and_docstrings_of_the_real_code_change_no_stage(real):
    before = digests(real, STAGE_VERSIONS)
    for path in real.rglob("*.py"):
        path.write_text("# A comment.\n" + path.read_text().replace('"""', '"""Renamed: ', 1))
    assert digests(real, STAGE_VERSIONS) == before


@pytest.mark.parametrize(
    ("name", "old", "new", "changed", "same"),
    [
        ("acquisition/operator.py", "atol=1e-6", "atol=1e-5", "fit_inr", "make_table"),
        ("reconstruct/projected.py", "not np.isfinite", "np.isnan", "fit_inr", "render_volume"),
        ("preprocess/ants_process.py", "ANTS_RANDOM_SEED", "ANTS_SEED", "correct_bias", "mask_head"),
        ("evaluate/report.html.j2", "<html", "<HTML", "write_report", "make_table"),
        ("volumes.py", "def cell_matrix(", "def cell_matrix(_, ", "correct_bias", "make_table"),
    ],
)
def test_an_edit_of_the_real_code_concerns_the_stages_that_use_it(real, name, old, new, changed, same):
    before = digests(real, (changed, same))
    edit(real / "src" / "headsr" / name, old, new)
    after = digests(real, (changed, same))
    assert after[changed] != before[changed] and after[same] == before[same]


def test_a_change_is_undecided_until_it_is_recorded(small):
    versions = {"fit": 1, "draw": 2}
    recorded = record(Code(small), versions, {})
    assert undecided(Code(small), versions, recorded) == {}
    edit(small / "src/headsr/fit.py", "ROUNDS = 3", "ROUNDS = 4")
    assert list(undecided(Code(small), versions, recorded)) == ["fit"]

    same_results = record(Code(small), versions, recorded, ["fit"])
    assert undecided(Code(small), versions, same_results) == {}
    assert same_results["draw"] == recorded["draw"]

    bumped = {**versions, "fit": 2}
    assert "record" in undecided(Code(small), bumped, recorded)["fit"]
    assert undecided(Code(small), bumped, record(Code(small), bumped, recorded)) == {}


def test_a_version_never_goes_down(small):
    recorded = record(Code(small), {"fit": 2, "draw": 1}, {})
    lowered = {"fit": 1, "draw": 1}
    assert "went down from 2 to 1" in undecided(Code(small), lowered, recorded)["fit"]
    with pytest.raises(SystemExit, match="fit: a version never goes down"):
        record(Code(small), lowered, recorded)


def test_stages_come_and_go(small):
    recorded = record(Code(small), {"fit": 1}, {})
    found = undecided(Code(small), {"draw": 1}, recorded)
    assert list(found) == ["draw", "fit"] and "new stage" in found["draw"] and "no stage any more" in found["fit"]
    assert list(record(Code(small), {"draw": 1}, recorded)) == ["draw"]
    with pytest.raises(SystemExit, match="no stage: sharpen"):
        record(Code(small), {"draw": 1}, recorded, ["sharpen"])


def test_the_record_has_one_line_for_each_stage(small, tmp_path, monkeypatch):
    monkeypatch.setattr(stage_digests, "RECORD", tmp_path / "record.json")
    recorded = record(Code(small), {"fit": 1, "draw": 2}, {})
    write_record(recorded)
    lines = (tmp_path / "record.json").read_text().splitlines()
    assert lines[0] == "{" and lines[-1] == "}" and [line.split('"')[1] for line in lines[1:-1]] == ["draw", "fit"]
    assert read_record() == recorded


def test_the_failure_names_the_stage_the_definitions_and_the_ways_out(small, monkeypatch):
    recorded = record(Code(small), {"fit": 1, "draw": 1}, {})
    shutil.copytree(small / "src", small / "before" / "src")
    shutil.copytree(small / "workflow", small / "before" / "workflow")
    monkeypatch.setattr(stage_digests, "_last_recorded", lambda folder: Code(small / "before"))
    edit(small / "src/headsr/fit.py", "ROUNDS = 3", "ROUNDS = 4")
    found = undecided(Code(small), {"fit": 1, "draw": 1}, recorded)
    said = explain(Code(small), found, recorded)
    assert "fit: its code changed" in said and "\n    headsr.fit.ROUNDS\n" in said and "draw:" not in said
    assert "src/headsr/stages.py" in said and "make stages" in said
