import pytest
import torch

from headsr.networks.attention import SelfAttention, TransformerBlock
from headsr.networks.feedforward import GegluFeedForward


def test_a_transformer_block_starts_as_no_change():
    features = torch.randn(2, 8, 3, 5)
    assert torch.equal(TransformerBlock(8, head_width=4, feedforward="geglu")(features), features)


def test_attention_mixes_all_pixels_and_respects_their_order():
    attention = SelfAttention(8, head_width=4)
    torch.nn.init.normal_(attention.out.weight)
    features = torch.randn(1, 8, 3, 5)
    moved = features.clone()
    moved[..., 2, 4] += 1
    assert (attention(features) - attention(moved)).abs()[..., 0, 0].max() > 1e-4
    flipped = attention(features.flip(-1)).flip(-1)
    assert torch.allclose(attention(features), flipped, atol=1e-5)


def test_attention_equals_its_formula():
    attention = SelfAttention(4, head_width=4)
    torch.nn.init.normal_(attention.out.weight)
    features = torch.randn(1, 4, 2, 3)
    q, k, v = attention.queries_keys_values(features).reshape(3, 4, 6).unbind()
    expected = v @ torch.softmax(q.T @ k / 2, dim=-1).T
    expected = attention.out(expected.reshape(1, 4, 2, 3))
    assert torch.allclose(attention(features), expected, atol=1e-5)


def test_the_feed_forward_block_has_the_weights_of_a_geglu():
    weights = sum(p.numel() for p in GegluFeedForward(16).parameters() if p.ndim == 4)
    assert weights == 12 * 16**2


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match="heads of width 5"):
        SelfAttention(8, head_width=5)
    with pytest.raises(ValueError, match="unknown feedforward 'mlp'"):
        TransformerBlock(8, head_width=4, feedforward="mlp")
