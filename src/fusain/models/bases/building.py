"""From a component to its real class with its weights in it."""

from __future__ import annotations

from typing import Any, Final

import torch

from fusain.models import text_names, weights
from fusain.models.bases.opened import Component

CLASSES: Final[dict[str, dict[str, str]]] = {
    "unet": {"UNet2DConditionModel": "diffusers"},
    "vae": {"AutoencoderKL": "diffusers"},
    "text_encoder": {"CLIPTextModel": "transformers"},
    "text_encoder_2": {"CLIPTextModelWithProjection": "transformers"},
}
"""The classes that are ever made of a base, by component: no file can name another one."""


def build(component: Component) -> torch.nn.Module:
    """The class with the weights in it, in fp32; every key of both sides is accounted for."""
    from accelerate import init_empty_weights

    with init_empty_weights():
        module = _made(component)
    if torch.get_default_device().type == "meta":  # whoever only counts needs no weights
        return module.eval()
    own = module.state_dict()
    found = component.tensors()
    if component.name.startswith("text_encoder"):
        found = text_names.as_class(found, own)
    where = next(iter(component.stored.values())).file
    weights.check_fit(own, found, where=where)
    copies = {name: tensor.to(torch.float32, copy=True).contiguous() for name, tensor in found.items()}
    module.load_state_dict(copies, assign=True)
    return module.eval()


def _made(component: Component) -> torch.nn.Module:
    """The class with weights that take no memory."""
    library = CLASSES[component.name][component.class_name]
    if library == "transformers":
        from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

        made: Any = {"CLIPTextModel": CLIPTextModel, "CLIPTextModelWithProjection": CLIPTextModelWithProjection}
        model: torch.nn.Module = made[component.class_name](CLIPTextConfig(**component.settings))
        return model
    from diffusers import AutoencoderKL, UNet2DConditionModel

    made = {"AutoencoderKL": AutoencoderKL, "UNet2DConditionModel": UNet2DConditionModel}
    network: torch.nn.Module = made[component.class_name].from_config(component.settings)
    return network
