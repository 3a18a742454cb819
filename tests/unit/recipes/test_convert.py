"""From YAML to dataclasses: every slip is named with file, key and the way out; what decides results is told apart."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headsr.recipes.convert import (
    FOR_MACHINE,
    FOR_PEOPLE,
    Ascending,
    Kinds,
    Names,
    Range,
    RecipeError,
    build,
    expanded,
    merged,
    plain,
    references,
    stated,
    tracked,
)


@dataclass(frozen=True)
class Part:
    share: Annotated[float, Range(0, 1)]
    uses: Annotated[str, Names("things", ("good",))] = ""


@dataclass(frozen=True)
class Thing:
    kind = "thing"
    number: Annotated[int, Range(1, 9)]
    pair: Annotated[tuple[float, float], Ascending()] = (0.0, 1.0)
    choice: Literal["one", "two"] = "one"
    words: Annotated[str, FOR_PEOPLE] = ""
    frugal: Annotated[bool, FOR_MACHINE] = False
    maybe: Annotated[float, Range(0, below=False)] | None = None
    parts: tuple[Part, ...] = ()
    by_name: dict[Literal["a", "b"], Part] = field(default_factory=dict)
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Other:
    kind = "other"


THINGS = Annotated[object, Kinds({"thing": Thing, "other": Other})]


def thing(**block):
    return build(THINGS, {"kind": "thing", "number": 3, **block}, "f: x")


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"numbr": 1}, r"f: x: unknown key 'numbr'; did you mean 'number'\?"),
        ({"zzz": 1}, "f: x: unknown key 'zzz'; known: number, pair"),
        ({"number": 0}, r"f: x\.number: 0 is out of range; it must be at least 1 and at most 9"),
        ({"number": 3.0}, r"f: x\.number: 3\.0 is not int"),
        ({"number": True}, r"f: x\.number: True is not int"),
        ({"number": "3"}, r"f: x\.number: '3' is text to YAML; write a number"),
        ({"number": None}, r"f: x\.number: None is not int"),
        ({"pair": [1, 0]}, r"f: x\.pair: \[1, 0\] goes down"),
        ({"pair": [1]}, r"f: x\.pair: needs 2 values, not 1"),
        ({"pair": 1}, r"f: x\.pair: 1 is not a list"),
        ({"pair": [0, float("nan")]}, r"f: x\.pair"),
        ({"maybe": -1}, r"f: x\.maybe: -1 is out of range"),
        ({"choice": "ones"}, r"f: x\.choice: unknown choice 'ones'; did you mean 'one'\?"),
        ({"choice": ["one"]}, r"f: x\.choice: unknown choice"),
        ({"parts": [{"share": 2}]}, r"f: x\.parts\[0\]\.share: 2 is out of range; it must be at least 0 and at most 1"),
        ({"parts": [{"shar": 1}]}, r"f: x\.parts\[0\]: unknown key 'shar'; did you mean 'share'"),
        ({"parts": [{}]}, r"f: x\.parts\[0\]: the key 'share' is missing"),
        ({"parts": [3]}, r"f: x\.parts\[0\]: must be a block of keys, not 3"),
        ({"by_name": {"c": {"share": 1}}}, r"f: x\.by_name: unknown by_name 'c'"),
        ({"by_name": {"a": {"share": "1e-3"}}}, r"f: x\.by_name\.a\.share: '1e-3' is text to YAML; .* 1\.0e-3"),
        ({"by_name": []}, r"f: x\.by_name: \[\] is not a block of keys"),
        ({"labels": ["a", 1]}, r"f: x\.labels\[1\]: 1 is no text to YAML; put it in quotes"),
        ({"words": 1.0}, r'f: x\.words: 1\.0 is no text to YAML; put it in quotes as it is meant, such as "1\.0"'),
        ({"kind": "thng"}, r"f: x\.kind: unknown kind 'thng'; did you mean 'thing'"),
    ],
)
def test_a_slip_is_named_at_any_depth(block, message):
    with pytest.raises(RecipeError, match=message):
        thing(**block)


def test_a_block_says_its_kind():
    with pytest.raises(RecipeError, match="f: x: the key 'kind' is missing; known: thing, other"):
        build(THINGS, {"number": 1}, "f: x")
    with pytest.raises(RecipeError, match="f: x: must be a block of keys, not 3"):
        build(THINGS, 3, "f: x")


def test_whole_numbers_are_good_where_any_number_is():
    assert thing(maybe=2).maybe == 2.0 and isinstance(thing(maybe=2).maybe, float)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_is_out_of_every_range(value):
    with pytest.raises(RecipeError, match="out of range"):
        thing(parts=[{"share": value}])


THING = st.builds(
    Thing,
    number=st.integers(1, 9),
    pair=st.tuples(st.floats(0, 1), st.floats(1, 2)),
    choice=st.sampled_from(["one", "two"]),
    words=st.text(max_size=3),
    frugal=st.booleans(),
    maybe=st.none() | st.floats(0, 10),
    parts=st.lists(st.builds(Part, share=st.floats(0, 1)), max_size=2).map(tuple),
    by_name=st.dictionaries(st.sampled_from("ab"), st.builds(Part, share=st.floats(0, 1))),
    labels=st.lists(st.text(max_size=2), max_size=2).map(tuple),
)


@given(THING)
def test_a_recipe_comes_back_from_plain_data(one):
    assert build(THINGS, plain(one), "x") == one


@given(THING, st.text(max_size=5), st.booleans())
def test_what_is_tracked_makes_the_same_recipe_but_for_its_words_and_the_machine(one, words, frugal):
    again = build(THINGS, tracked(one), "x")
    assert {**plain(one), "words": "", "frugal": False} == plain(again)
    assert tracked(build(THINGS, {**plain(one), "words": words, "frugal": frugal}, "x")) == tracked(one)


def test_a_default_is_not_tracked_and_anything_else_is():
    assert tracked(thing()) == {"kind": "thing", "number": 3}
    assert tracked(thing(choice="two", words="x")) == {"kind": "thing", "choice": "two", "number": 3}
    assert tracked(thing(parts=[{"share": 1}])) == {"kind": "thing", "number": 3, "parts": [{"share": 1.0}]}


def test_what_is_stated_has_what_is_not_tracked_too_and_no_default():
    assert stated(thing()) == {"kind": "thing", "number": 3}
    assert stated(thing(words="x")) == {"kind": "thing", "number": 3, "words": "x"}
    assert stated(thing(frugal=True)) == {"kind": "thing", "number": 3, "frugal": True}


def test_names_are_found_at_any_depth_with_what_they_must_be():
    one = thing(parts=[{"share": 1}, {"share": 1, "uses": "p"}], by_name={"b": {"share": 0, "uses": "q"}})
    found = [(r.name, r.part, r.kinds, r.where) for r in references(None, one, "f")]
    assert found == [("p", "things", ("good",), "f.parts[1].uses"), ("q", "things", ("good",), "f.by_name.b.uses")]


def test_each_writes_out_every_combination():
    block = {"each": {"factor": [2, 2.5], "as": ["box", "zoom"]}, "stacks": [{"factor": "{factor}", "how": "a {as}"}]}
    assert expanded({"x{factor}_{as}": block, "plain": {"kind": "{"}}, "f") == {
        "x2_box": {"stacks": [{"factor": 2, "how": "a box"}]},
        "x2_zoom": {"stacks": [{"factor": 2, "how": "a zoom"}]},
        "x2.5_box": {"stacks": [{"factor": 2.5, "how": "a box"}]},
        "x2.5_zoom": {"stacks": [{"factor": 2.5, "how": "a zoom"}]},
        "plain": {"kind": "{"},
    }


@pytest.mark.parametrize(
    ("name", "block", "message"),
    [
        ("x{factor}", {"each": {"factor": [1, 2], "as": ["a", "b"]}}, r"d: x\{factor\}: the name 'x1' comes twice"),
        ("x{factor}", {"each": {"factor": [1]}, "kind": "{factr}"}, r"'\{factr\}' holds a placeholder.*\(factor\)"),
    ],
)
def test_each_that_does_not_name_its_blocks_is_refused(name, block, message):
    with pytest.raises(RecipeError, match=message):
        expanded({name: block}, "d")


def test_overrides_change_one_key_and_leave_the_rest():
    assert merged({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}) == {"a": {"b": 3, "c": 2}}


def test_plain_is_the_same_for_reordered_keys():
    one = plain({"b": {"y": 1, "x": (1, 2)}, "a": 0})
    other = plain({"a": 0, "b": {"x": [1, 2], "y": 1}})
    assert list(one) == list(other) == ["a", "b"] and one == other
