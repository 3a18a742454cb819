from headsr.training.whole_run import with_last_line


def test_the_last_line_is_added_or_completed():
    assert with_last_line([], 5, {"a": 1.0}) == [{"step": 5, "a": 1.0}]
    assert with_last_line([{"step": 4}], 5, {"a": 1.0}) == [{"step": 4}, {"step": 5, "a": 1.0}]
    history = [{"step": 5, "b": 2.0}]
    assert with_last_line(history, 5, {"a": 1.0}) == [{"step": 5, "b": 2.0, "a": 1.0}]
    assert history == [{"step": 5, "b": 2.0}]
