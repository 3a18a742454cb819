"""The benchmark of fillings: as many parameters as it says, the same slices and noise for all, and every run kept."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))

import fillings
from fillings import VARIANTS, Bench, Between, Examples, Results, Variant, matched_width, numbers

from headsr.files import read_json, write_json
from headsr.networks.build import build_network
from headsr.networks.feedforward import FEED_FORWARDS
from headsr.weights import TrainedModel

TINY = {
    "network": {"channels": [8, 8], "blocks": 1, "attention": [False, True], "head_width": 4},
    "data": {"crop": 16},
    "budget": {"batch": 4},
}
CPU = torch.device("cpu")


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.setattr(fillings, "SMALL", fillings.merged(fillings.SMALL, TINY))
    kl = {"architecture": "kl", "channels": [4, 4, 8], "blocks": 1, "latent_channels": 2}
    autoencoder = TrainedModel("autoencoder", build_network(kl).eval(), "fp32")
    recipe = fillings.small_recipe(autoencoder.module)
    torch.manual_seed(0)
    return Bench(recipe, autoencoder, fillings.blank_examples(recipe, CPU), CPU)


def test_names_are_all_different():
    assert len({one.name for one in VARIANTS}) == len({one.words for one in VARIANTS}) == len(VARIANTS) == 10


@pytest.mark.parametrize("variant", [one for one in VARIANTS if one.like], ids=lambda one: one.name)
@pytest.mark.parametrize("channels", [64, 128])
def test_no_other_width_is_nearer_to_as_many_parameters(variant, channels):
    wanted, width = (
        numbers(FEED_FORWARDS[variant.like](channels)),
        matched_width(variant.filling, variant.like, channels),
    )
    here, *others = (numbers(Between(variant.filling, channels, width + more)) for more in (0, -1, 1))
    assert all(abs(here - wanted) <= abs(other - wanted) for other in others) and abs(here / wanted - 1) < 0.03


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda one: one.name)
def test_a_variant_fills_every_slot_and_starts_as_no_change(variant, bench):
    unet = variant.network(bench.recipe.network)
    slots = fillings.slots_of(unet)
    assert len(slots) == 1 and isinstance(slots[0].feedforward, Between) == bool(variant.like)
    features = torch.randn(2, 8, 3, 5)
    assert not slots[0].feedforward(features).any()
    assert numbers(unet) - numbers(slots[0].feedforward) == numbers(
        other := Variant("geglu").network(bench.recipe.network)
    ) - numbers(fillings.slots_of(other)[0].feedforward), "nothing but the slots differs"


def test_every_example_comes_once_a_round_in_an_order_of_the_seed(bench):
    pairs = bench.examples["train"]
    pairs = pairs._replace(planes=torch.arange(32))
    rounds = [[Examples(pairs, 4, seed).batch(step).planes for step in range(9)] for seed in (1, 1, 2)]
    assert all(torch.equal(a, b) for a, b in zip(*rounds[:2], strict=True))
    for one in rounds:
        assert torch.cat(one[:8]).sort().values.tolist() == list(range(32))
    assert not torch.equal(rounds[0][0], rounds[2][0]) and not torch.equal(rounds[0][0], rounds[0][8])


@pytest.mark.parametrize("like", ["", "geglu"])
def test_a_run_has_the_same_bytes_in_any_order(bench, like, tmp_path):
    variants = [Variant("kan", like), Variant("metakan", like)]
    assert fillings.same_bytes(bench, variants, 3)
    first, other = (fillings.run(bench, variants[0], seed, 3, tmp_path) for seed in (1, 2))
    assert first["weights"] != other["weights"] and [step for step, _ in first["curve"]] == [0, 3]


def test_an_order_that_matters_is_noticed(bench, monkeypatch):
    made = []
    monkeypatch.setattr(fillings, "run", lambda *_: made.append(1) or len(made))
    assert not fillings.same_bytes(bench, list(VARIANTS[:2]), 3)


def test_validation_has_the_same_noise_for_every_seed(bench, tmp_path):
    """A network that has learned nothing leaves the same, whatever the seed; one that learned it leaves less."""
    rate = replace(bench.recipe.optimizer, learning_rate=0.01)
    faster = replace(bench, recipe=replace(bench.recipe, optimizer=rate, unconditional=0.0))
    faster.examples["train"].clean.copy_(faster.examples["train"].degraded[:, :, ::4, ::4].expand(-1, 2, -1, -1))
    curves = [faster.trained(Variant("geglu"), seed, 40, tmp_path)[0] for seed in (1, 2)]
    first, second = ([line["loss"] for line in history if "loss" in line] for history in curves)
    assert first[0] == pytest.approx(second[0], rel=1e-3) and first[-1] != second[-1]
    assert first[-1] < 0.95 * first[0]


def test_what_is_finished_is_kept_and_other_settings_are_refused(tmp_path):
    made = []
    for _ in range(2):
        results = Results(tmp_path, {"steps": 10})
        kept = results.kept("run_kan_seed2", lambda: made.append(1) or {"seed": 2, "curve": [[0, 1.0]]})
    assert kept == {"seed": 2, "curve": [[0, 1.0]]} and len(made) == 1
    write_json(tmp_path / "run_kan_as_geglu_seed1.json", {"seed": 1})
    assert list(results.runs(Variant("kan"))) == [2] and list(results.runs(Variant("kan", "geglu"))) == [1]
    with pytest.raises(SystemExit, match=r"setting\.json.*Name another folder"):
        Results(tmp_path, {"steps": 20})
    assert read_json(tmp_path / "setting.json") == {"steps": 10}


def test_examples_are_encoded_once(tmp_path, bench):
    made = []
    for _ in range(2):
        found = Results(tmp_path, {}).examples(lambda split: made.append(split) or bench.examples[split])
    assert made == ["train", "val"]
    assert all(torch.equal(a, b) for a, b in zip(found["val"], bench.examples["val"], strict=True))


def test_the_table_reads_the_curves_at_equal_steps_and_at_equal_time():
    def runs(*ends):
        return {seed: {"curve": [[0, 1.0], [100, end]]} for seed, end in enumerate(ends, start=1)}

    cost = {name: {"parameters": 1000, "in_slots": 10, "mib": 5.0, "checkpointed_mib": 4.0, "seconds": seconds}
            for name, seconds in (("geglu", 0.02), ("kan", 0.04))}  # fmt: skip
    found = {Variant("geglu"): runs(0.5, 0.7), Variant("kan"): runs(0.4, 0.5)}
    heading, geglu, kan = fillings.table(found, cost, 100)
    assert "loss, 100 steps | over geglu | loss, 2 s" in heading
    assert "| 20.0 | 1.00 | 0.6000 ± 0.1414 |  | 0.6000 ± 0.1414 |  |" in geglu
    # In the time of geglu's 100 steps it takes 50, which is half of its way.
    assert "| 40.0 | 2.00 | 0.4500 ± 0.0707 | -0.1500 ± 0.0707 | 0.7250 ± 0.0354 | +0.1250 ± 0.1061 |" in kan
    assert list(fillings.curves(found, 100))[1] == "| geglu | 0.6000 |"


def test_a_step_is_timed_in_turns(bench, tmp_path, monkeypatch):
    monkeypatch.setattr(fillings, "VARIANTS", VARIANTS[:2])
    monkeypatch.setattr(fillings, "ROUNDS", 2)
    order = []
    trained = Bench.trained
    monkeypatch.setattr(Bench, "trained", lambda self, v, *rest: order.append(v.name) or trained(self, v, *rest))
    found = fillings.seconds(bench, tmp_path)
    assert order == [VARIANTS[0].name, VARIANTS[1].name] * 2 and all(0 < taken < 5 for taken in found.values())
