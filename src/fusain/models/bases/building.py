"""From a component to its real class with its weights in it."""

from __future__ import annotations

from typing import Any, Final, cast

import torch

from fusain.models import text_names, weights
from fusain.models.bases.opened import Component

CLASSES: Final[dict[str, dict[str, str]]] = {
    "unet": {"UNet2DConditionModel": "diffusers"},
    "vae": {"AutoencoderKL": "diffusers"},
    "text_encoder": {"CLIPTextModel": "transformers"},
    "text_encoder_2": {"CLIPTextModelWithProjection": "transformers"},
    "text_encoder_3": {"T5EncoderModel": "transformers"},
    "transformer": {"SD3Transformer2DModel": "diffusers"},
}
"""The classes that are ever made of a base, by component: no file can name another one."""
OF_SD3: Final = {"text_encoder": CLASSES["text_encoder_2"]}
"""Where Stable Diffusion 3 has another class than those before it."""
LIBRARIES: Final = {name: library for table in CLASSES.values() for name, library in table.items()}


def classes(component: str, architecture: str) -> dict[str, str]:
    """The classes that a component may have, and their libraries."""
    return (OF_SD3 if architecture == "sd3" else {}).get(component, CLASSES[component])


def build(component: Component) -> torch.nn.Module:
    """The class with the weights in it, in fp32; every key of both sides is accounted for."""
    from accelerate import init_empty_weights

    with init_empty_weights():
        module = without_weights(component)
    if torch.get_default_device().type == "meta":  # whoever only counts needs no weights
        return module.eval()
    own = module.state_dict()
    found = component.tensors()
    if component.name in text_names.OF_CLIP:
        found = text_names.as_class(found, own)
    elif component.class_name == "T5EncoderModel":
        found = text_names.with_both_tables(found)
    where = next(iter(component.stored.values())).file
    weights.check_fit(own, found, where=where)
    copies = {name: tensor.to(torch.float32, copy=True).contiguous() for name, tensor in found.items()}
    module.load_state_dict(copies, assign=True)
    if component.class_name == "T5EncoderModel":
        cast(Any, module).tie_weights()  # one table again, not two copies
    return module.eval()


def without_weights(component: Component) -> torch.nn.Module:
    """The class with weights that take no memory."""
    if LIBRARIES[component.class_name] == "transformers":
        import transformers

        kind = getattr(transformers, component.class_name)
        model: torch.nn.Module = kind(kind.config_class(**component.settings))
        return model
    import diffusers

    network: torch.nn.Module = getattr(diffusers, component.class_name).from_config(component.settings)
    return network
