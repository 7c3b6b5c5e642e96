"""The diffusers pipeline that draws from class vectors, with classifier-free guidance (Ho and Salimans 2022)."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput
from diffusers.utils.torch_utils import randn_tensor


class ClassConditionalPipeline(DiffusionPipeline):  # type: ignore[misc]
    """A UNet that attends to one vector an image, the network that makes it from a class vector, and a scheduler."""

    def __init__(self, unet: Any, class_embedding: torch.nn.Module, scheduler: Any) -> None:
        super().__init__()
        self.register_modules(unet=unet, class_embedding=class_embedding, scheduler=scheduler)

    @torch.no_grad()
    def __call__(
        self,
        labels: torch.Tensor,
        *,
        generator: list[torch.Generator],
        num_inference_steps: int,
        guidance_scale: float = 1.0,
        eta: float = 0.0,
    ) -> ImagePipelineOutput:
        """Images as numpy N x H x W x channels in [0, 1]; the zero vector is 'no class', guidance 1 plain."""
        size, channels, unet = self.unet.config.sample_size, self.unet.config.in_channels, self.unet
        device, precision = self.unet.device, self.unet.dtype
        image = randn_tensor((len(labels), channels, size, size), generator=generator, device=device, dtype=precision)
        guided = guidance_scale != 1.0
        vectors = labels.to(device, precision)
        context = self.class_embedding(torch.cat([torch.zeros_like(vectors), vectors]) if guided else vectors)
        extra = {"eta": eta} if "eta" in self.scheduler.step.__code__.co_varnames else {}
        self.scheduler.set_timesteps(num_inference_steps)
        for time in self.progress_bar(self.scheduler.timesteps):
            predicted = unet(torch.cat([image, image]) if guided else image, time, context, return_dict=False)[0]
            if guided:
                without, with_class = predicted.chunk(2)
                predicted = without + guidance_scale * (with_class - without)
            image = self.scheduler.step(predicted, time, image, generator=generator, **extra).prev_sample
        pixels = (image / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).float().cpu().numpy()
        return ImagePipelineOutput(images=pixels)
