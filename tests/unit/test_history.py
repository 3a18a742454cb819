import json

from headsr.history import history_so_far, read_history, write_history


def test_history_is_one_object_a_line(tmp_path):
    write_history(tmp_path / "history.jsonl", [{"step": 0, "a": 1.5}, {"step": 10}])
    lines = (tmp_path / "history.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"step": 0, "a": 1.5}, {"step": 10}]
    assert read_history(tmp_path / "history.jsonl") == [{"step": 0, "a": 1.5}, {"step": 10}]


def test_a_line_that_is_being_written_does_not_count_yet(tmp_path):
    (tmp_path / "rolling.jsonl").write_text('{"step": 0}\n{"step": 10}\n{"st')
    assert read_history(tmp_path / "rolling.jsonl") == [{"step": 0}, {"step": 10}]


def test_a_running_history_is_what_is_there_and_of_what_was_trained_twice_the_later(tmp_path):
    files = [tmp_path / f"{name}.jsonl" for name in ("segment-0", "segment-1", "rolling")]
    write_history(files[0], [{"step": 0}, {"step": 10}])
    assert history_so_far(files) == [{"step": 0}, {"step": 10}]
    write_history(files[2], [{"step": 20, "new": 1.0}])
    assert history_so_far(files) == [{"step": 0}, {"step": 10}, {"step": 20, "new": 1.0}]
    write_history(files[1], [{"step": 20}, {"step": 30}])
    assert history_so_far(files) == [{"step": 0}, {"step": 10}, {"step": 20, "new": 1.0}]
    assert history_so_far([tmp_path / "none.jsonl"]) == []
