import pytest

from headsr.training.schedules import rate_of

LAST = 100


def rates(recipe_of, shape, *, segments=1, segment=0, warm_up=5, steps=LAST):
    recipe = recipe_of(
        "baseline",
        steps=steps,
        segments=segments,
        optimizer={"learning_rate": 1.0},
        schedule={"shape": shape, "warm_up": warm_up},
    )
    return rate_of(recipe, recipe.course(segment), last=(segment + 1) * steps)


def test_a_cosine_rises_and_falls_to_one_percent_over_all_segments(recipe_of):
    whole, parts = (
        rates(recipe_of, "cosine"),
        [rates(recipe_of, "cosine", steps=25, segments=4, segment=k) for k in (0, 3)],
    )
    assert (whole(1), whole(5), whole(LAST)) == (pytest.approx(0.2), 1, pytest.approx(0.01))
    assert all(part(step) == whole(step) for part in parts for step in range(1, LAST + 1))


def test_a_constant_is_the_same_whatever_the_number_of_segments(recipe_of):
    one, many = rates(recipe_of, "constant"), rates(recipe_of, "constant", segments=9, segment=8)
    assert (one(1), one(5), one(10**6), many(10**6)) == (pytest.approx(0.2), 1, 1, 1)
    assert rates(recipe_of, "constant", warm_up=0)(1) == 1


def test_a_decay_is_the_last_segment_of_a_few(recipe_of):
    first, last = (rates(recipe_of, "decay", steps=10, segments=5, segment=k) for k in (3, 4))
    assert [first(step) for step in (31, 40)] == [1, 1]
    assert [last(step) for step in (41, 46, 50)] == [1, pytest.approx(0.5), pytest.approx(0.1)]


def test_a_decay_is_one_line_over_the_last_fifth_of_many_segments(recipe_of):
    segments = [rates(recipe_of, "decay", steps=10, segments=13, segment=k) for k in range(13)]
    assert {rate(10 * k + n) for k, rate in enumerate(segments[:10]) for n in (6, 10)} == {1}
    falling = [segments[10 + k](101 + 10 * k + n) for k in range(3) for n in range(10)]
    assert falling == pytest.approx([(30 - n) / 30 for n in range(30)])


def test_only_what_decides_a_segment_s_rate_is_its_course(recipe_of):
    def course(shape, segments, segment):
        return recipe_of("baseline", steps=10, segments=segments, schedule={"shape": shape}).course(segment)

    assert course("constant", 2, 0) == course("constant", 3, 1) == {}
    assert course("cosine", 2, 0) == {"total": 20} != course("cosine", 3, 0)
    assert course("decay", 2, 0) == course("decay", 9, 6) == {"falls": 0} != course("decay", 1, 0)
    assert course("decay", 9, 7) == {"falls": 1, "of": 2} == course("decay", 10, 8)
