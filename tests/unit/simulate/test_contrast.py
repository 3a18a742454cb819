import numpy as np
import pytest

from headsr.simulate.contrast import BRAIN_PEAK, SEQUENCES, TISSUES, random_signal, tissue_of, tissue_signal_of


@pytest.mark.parametrize(
    ("name", "tissue"),
    [
        ("left cerebral white matter", "white"),
        ("Left-Cerebral-White-Matter", "white"),
        ("Right-Cerebellum-White-Matter", "hindbrain"),
        ("Right-Cerebellum-Cortex", "grey"),
        ("Grey Matter", "grey"),
        ("CGM", "grey"),
        ("Cerebrospinal Fluid", "csf"),
        ("Left-Inf-Lat-Vent", "ventricle"),
        ("3rd ventricle", "ventricle"),
        ("Left-VentralDC", "thalamus"),
        ("WM-hypointensities", "lesion"),
        ("Background", "air"),
        ("Bone_Cancellous", "marrow"),
        ("Soft tissue", "soft"),
        ("extracerebral soft tissue, bone or eye class 515", "bone"),
        ("extracerebral soft tissue, bone or eye class 506", "vitreous"),
        ("Left hippocampus L", "grey"),
        ("L", "lesion"),
        ("ctx-lh-bankssts", "grey"),
        ("ctx_rh_G_and_S_frontomargin", "grey"),
        ("ctx-lh-unknown", "grey"),
        ("flux capacitor", None),
    ],
)
def test_names_of_common_tables_say_their_tissue(name, tissue):
    assert tissue_of(name) == tissue


def test_every_sequence_orders_the_tissues_as_radiologists_know_them():
    t1, t2, pd, flair = (tissue_signal_of(suffix) for suffix in SEQUENCES)
    assert t1["fat"] > t1["white"] > t1["thalamus"] > t1["striatum"] > t1["grey"] > t1["csf"]
    assert t2["csf"] > t2["lesion"] > t2["grey"] > t2["white"] > t2["pallidum"]
    assert pd["lesion"] > pd["grey"] > pd["white"] > pd["csf"] > pd["bone"]
    assert flair["lesion"] > flair["grey"] > flair["white"] > 10 * flair["csf"]
    assert t1["lesion"] < t1["white"] and t1["artery"] > t1["white"] and t2["artery"] < t2["white"]


@pytest.mark.parametrize("suffix", SEQUENCES)
def test_signals_are_scaled_to_the_brightest_brain_tissue(suffix):
    signal = tissue_signal_of(suffix)
    assert set(signal) == set(TISSUES)
    assert max(signal[tissue] for tissue in ("white", "grey", "csf")) == pytest.approx(BRAIN_PEAK)
    assert min(signal.values()) >= 0


def test_the_inversion_of_flair_is_the_textbook_one():
    signal, csf, white = tissue_signal_of("FLAIR"), TISSUES["csf"], TISSUES["white"]

    def echo(tissue):
        recovered = abs(1 - 2 * np.exp(-2500 / tissue.t1) + np.exp(-9000 / tissue.t1))
        return tissue.density * recovered * np.exp(-90 / tissue.t2)

    assert signal["csf"] / signal["white"] == pytest.approx(echo(csf) / echo(white))


def test_an_unknown_sequence_is_refused():
    with pytest.raises(ValueError, match=r"T3w: no contrast.*FLAIR"):
        tissue_signal_of("T3w")


def test_random_contrasts_differ_and_keep_air_dark():
    one, other = (random_signal(["air", "white"], rng=np.random.default_rng(seed)) for seed in (0, 1))
    assert one["air"] == other["air"] == 0
    assert one["white"] != other["white"]
