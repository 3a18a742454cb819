"""A default never changes without a word, and the reference says what the recipes say."""

import json

from defaults import RECORD, defaults

from headsr.recipes import every_part
from headsr.recipes.reference import MARK, README, reference

CHANGED = """a default changed: recipes that leave the key out mean something else now, and nothing would be made anew.
Raise the version of what it belongs to, then: make versions"""


def test_no_recorded_default_changed():
    recorded, now = json.loads(RECORD.read_text()), json.loads(json.dumps(defaults()))
    changed = {key: (value, now.get(key, "is gone")) for key, value in recorded.items() if now.get(key, "") != value}
    assert not changed, CHANGED
    assert recorded.keys() == now.keys(), "a new default is recorded by: make versions"


def test_there_is_a_default_in_a_block_within_a_block():
    assert defaults()["GridField.hidden"] == 16 and defaults()["Fit.prior_every"] == 4


def test_the_reference_is_made_from_the_recipes():
    said = README.read_text(encoding="utf-8").partition(MARK)[2]
    assert said == reference(), "make it again: python -m headsr.recipes.reference"
    assert "| `iterations` | whole number, at least 1 and at most 10000 | needed | Conjugate-gradient steps. |" in said


def test_every_part_has_a_place_in_headsr():
    for name, part in every_part().items():
        assert part.place.startswith("headsr.") and part.version >= 1, name
