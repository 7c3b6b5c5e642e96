"""Plain attention where few places attend, the fused kernel elsewhere; the numbers are the same."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor

from fusain.models import attention


def unet(*attends: bool) -> UNet2DConditionModel:
    kinds = ["CrossAttn" if one else "" for one in attends]
    return UNet2DConditionModel(
        block_out_channels=(8,) * len(kinds),
        layers_per_block=1,
        down_block_types=tuple(f"{kind}DownBlock2D" for kind in kinds),
        up_block_types=tuple(f"{kind}UpBlock2D" for kind in reversed(kinds)),
        cross_attention_dim=8,
        attention_head_dim=2,
        norm_num_groups=4,
    )


@pytest.mark.parametrize(
    ("attends", "side", "plain"),
    [((False, True), 16, True), ((True, True), 16, False), ((True, True), 8, True), ((True, True, False), 64, False)],
)
def test_the_first_level_that_attends_decides(attends: tuple[bool, ...], side: int, plain: bool) -> None:
    network = unet(*attends)
    attention.suit(network, side)
    assert {type(one) is AttnProcessor for one in network.attn_processors.values()} == {plain}


def test_the_numbers_are_the_same() -> None:
    network = unet(False, True).eval()
    inputs = (torch.randn(2, 4, 16, 16), torch.tensor([3, 900]), torch.randn(2, 7, 8))
    with torch.no_grad():
        fused = network(*inputs).sample
        attention.suit(network, 16)
        torch.testing.assert_close(network(*inputs).sample, fused, rtol=1e-5, atol=1e-6)
