import json

from headsr.history import read_history, write_history


def test_history_is_one_object_a_line(tmp_path):
    write_history(tmp_path / "history.jsonl", [{"step": 0, "a": 1.5}, {"step": 10}])
    lines = (tmp_path / "history.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"step": 0, "a": 1.5}, {"step": 10}]
    assert read_history(tmp_path / "history.jsonl") == [{"step": 0, "a": 1.5}, {"step": 10}]
