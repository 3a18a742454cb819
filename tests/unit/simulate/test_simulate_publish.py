import json

import pytest
from threadpoolctl import threadpool_info, threadpool_limits

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


def test_images_are_made_with_one_thread_of_blas(tmp_path):
    """Matrix products round differently with another number of threads, and the images are to have the same bytes."""
    threads = []

    def write(folder):
        threads.extend(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")
        (folder / "README").write_text("x")

    with threadpool_limits(2, "blas"):
        publish_dataset(tmp_path / "heads", name="heads", made_from="nothing", write=write)
    assert threads and set(threads) == {1}
