"""The diffusers pipeline that draws pixels with any scheduler, freely or steered by class vectors with guidance."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput
from diffusers.utils.torch_utils import randn_tensor


class PixelPipeline(DiffusionPipeline):  # type: ignore[misc]
    """A UNet, a scheduler, and with classes the network that makes of a class vector what the UNet attends to."""

    def __init__(self, unet: Any, class_embedding: torch.nn.Module | None, scheduler: Any) -> None:
        super().__init__()
        self.register_modules(unet=unet, class_embedding=class_embedding, scheduler=scheduler)

    @torch.no_grad()
    def __call__(
        self,
        labels: torch.Tensor | None,
        *,
        generator: Sequence[torch.Generator],
        num_inference_steps: int,
        guidance_scale: float = 1.0,
        eta: float = 0.0,
    ) -> ImagePipelineOutput:
        """Images as numpy N x H x W x channels in [0, 1], one for each generator; the zero vector is 'no class'."""
        size, channels, scheduler = self.unet.config.sample_size, self.unet.config.in_channels, self.scheduler
        place = {"generator": list(generator), "device": self.unet.device, "dtype": self.unet.dtype}
        scheduler.set_timesteps(num_inference_steps)
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(0)  # else it looks for the first time, and where two are alike takes the second
        image = randn_tensor((len(generator), channels, size, size), **place) * scheduler.init_noise_sigma
        context, guidance = self._context(labels, guidance_scale)
        # Fresh noise comes from the generator of each image, so that its neighbours change nothing.
        takes = inspect.signature(scheduler.step).parameters
        extra = {name: given for name, given in (("generator", list(generator)), ("eta", eta)) if name in takes}
        for time in self.progress_bar(scheduler.timesteps):
            predicted = self._predict(scheduler.scale_model_input(image, time), time, context, guidance)
            image = scheduler.step(predicted, time, image, **extra).prev_sample
        pixels = (image / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).float().cpu().numpy()
        return ImagePipelineOutput(images=pixels)

    def _context(self, labels: torch.Tensor | None, guidance: float) -> tuple[tuple[torch.Tensor, ...], float]:
        """What the UNet attends to, without and with the class where guidance needs both."""
        if labels is None:
            return (), 1.0
        vectors = labels.to(self.unet.device, self.unet.dtype)
        asked = torch.cat([torch.zeros_like(vectors), vectors]) if guidance != 1.0 else vectors
        return (self.class_embedding(asked),), guidance

    def _predict(
        self, image: torch.Tensor, time: torch.Tensor, context: tuple[torch.Tensor, ...], guidance: float
    ) -> torch.Tensor:
        """Classifier-free guidance (Ho and Salimans 2022); 1 is the plain prediction."""
        if guidance == 1.0:
            return self.unet(image, time, *context, return_dict=False)[0]  # type: ignore[no-any-return]
        predicted = self.unet(torch.cat([image, image]), time, *context, return_dict=False)[0]
        without, with_class = predicted.chunk(2)
        return without + guidance * (with_class - without)  # type: ignore[no-any-return]
