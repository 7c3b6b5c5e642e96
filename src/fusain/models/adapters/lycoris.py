"""The two other forms that LyCORIS files hold, only to be read: LoHa (Hadamard) and LoKr (Kronecker)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fusain.models.adapters.magnitude import merged


def product(a: torch.Tensor, b: torch.Tensor, core: torch.Tensor | None) -> torch.Tensor:
    """a @ b, or both around a core, where a is stored on its side."""
    if core is None:
        return a.float() @ b.float()
    return torch.einsum("mnhw,mo,ni->oihw", core.float(), a.float(), b.float())


@dataclass(frozen=True)
class Hadamard:
    """LoHa: the product, number by number, of two changes of low rank."""

    a1: torch.Tensor
    b1: torch.Tensor
    a2: torch.Tensor
    b2: torch.Tensor
    scale: float
    core1: torch.Tensor | None = None
    core2: torch.Tensor | None = None
    magnitude: torch.Tensor | None = None

    @property
    def rank(self) -> int:
        return self.b1.shape[0]

    @property
    def matrix(self) -> tuple[int, int]:
        """Outputs, and all that enters one of them."""
        if self.core1 is None:
            return self.a1.shape[0], self.b1.shape[1]
        return self.a1.shape[1], self.b1.shape[1] * self.core1[0, 0].numel()

    def change(self) -> torch.Tensor:
        first, second = product(self.a1, self.b1, self.core1), product(self.a2, self.b2, self.core2)
        return self.scale * first * second

    def delta(self, weight: torch.Tensor, strength: float = 1.0) -> torch.Tensor:
        """What is added to `weight`, in fp32."""
        return merged(weight, self.change(), self.magnitude, strength)


@dataclass(frozen=True)
class Kronecker:
    """LoKr: the Kronecker product of a small and a larger matrix."""

    left: torch.Tensor
    right: torch.Tensor
    scale: float
    rank: int
    """Of the factor that is stored as a product; its larger side where none is."""
    magnitude: torch.Tensor | None = None

    @property
    def matrix(self) -> tuple[int, int]:
        """Outputs, and all that enters one of them."""
        return self.left.shape[0] * self.right.shape[0], self.left.shape[1] * self.right[0].numel()

    def change(self) -> torch.Tensor:
        left, right = self.left.float(), self.right.float()
        return self.scale * torch.kron(left.reshape(*left.shape, *[1] * (right.ndim - 2)), right.contiguous())

    def delta(self, weight: torch.Tensor, strength: float = 1.0) -> torch.Tensor:
        """What is added to `weight`, in fp32."""
        return merged(weight, self.change(), self.magnitude, strength)
