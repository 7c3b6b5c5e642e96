"""Safe loading and saving of weights: safetensors only, every key accounted for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from fusain.errors import StorageError


def read(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a safetensors file."""
    try:
        return load_file(path)
    except (SafetensorError, OSError) as fault:
        raise StorageError("E-MODEL-001", where=str(path), fault=fault) from fault


def read_into(module: torch.nn.Module, path: Path) -> None:
    """Put a file's tensors into `module`; a key too many or too few is an error, never silence."""
    tensors = read(path)
    check_fit(module.state_dict(), tensors, where=path)
    module.load_state_dict(tensors)


def check_fit(wanted: Mapping[str, torch.Tensor], tensors: Mapping[str, torch.Tensor], *, where: Path) -> None:
    """Both have the same names and shapes, or it is an error that names the first that differs."""
    missing, unknown = sorted(wanted.keys() - tensors.keys()), sorted(tensors.keys() - wanted.keys())
    unlike = [name for name in wanted.keys() & tensors.keys() if wanted[name].shape != tensors[name].shape]
    if missing or unknown or unlike:
        first = (missing + unknown + sorted(unlike))[0]
        matched = len(wanted) - len(missing) - len(unlike)
        raise StorageError("E-MODEL-002", where=str(where), matched=matched, total=len(wanted), first=first)


def load_into(module: torch.nn.Module, folder: Path) -> None:
    """As `read_into`, from a folder that diffusers' `save_pretrained` wrote."""
    read_into(module, folder / "diffusion_pytorch_model.safetensors")


def write(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Tensors as one safetensors file; what shares memory is written apart."""
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, path)
