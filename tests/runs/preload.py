"""What every training process needs, loaded once into the server that they are forked from."""

import accelerate
import diffusers
import diffusers.pipelines.ddim.pipeline_ddim
import diffusers.pipelines.ddpm.pipeline_ddpm
import torch

import fusain.runs.actions

MODULES = (accelerate, diffusers.UNet2DConditionModel, diffusers.UNet2DModel, torch, fusain.runs.actions)
