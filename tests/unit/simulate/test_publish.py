import json

import pytest

from headsr.simulate.publish import DatasetError, generated_by, publish_dataset, write_participants


def test_a_dataset_is_known_again_by_what_it_was_made_from(tmp_path):
    made = tmp_path / "made"
    made.mkdir()
    (made / "dataset_description.json").write_text(json.dumps({"GeneratedBy": generated_by("these")}))
    publish_dataset(made, name="x", made_from="these", write=lambda _: pytest.fail("made again"))
    with pytest.raises(DatasetError, match="holds 'these', not 'those'"):
        publish_dataset(made, name="x", made_from="those", write=lambda _: pytest.fail("made over another"))


def test_participants_have_their_columns_in_order(tmp_path):
    write_participants(
        tmp_path, [{"lesions": "mild", "participant_id": "sub-01"}], {"participant_id": "a", "lesions": "b"}
    )
    assert (tmp_path / "participants.tsv").read_text() == "participant_id\tlesions\nsub-01\tmild\n"
    assert json.loads((tmp_path / "participants.json").read_text())["lesions"]["Description"] == "b"
