"""From captions to what a text encoder makes of them: tokens in windows of the encoder's length, and clip skip."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import torch

from fusain.models import new_words, text_names, weights
from fusain.settings.notice import Notice

CUTS_SHOWN = 5
LONGEST_SHOWN = 60
"""Letters of what a caption loses; a story would fill the screen."""


def hiding(captions: Sequence[str], dropped_B: torch.Tensor | None) -> tuple[str, ...]:
    """Captions with empty ones in place of those that are hidden."""
    if dropped_B is None:
        return tuple(captions)
    return tuple("" if hides else words for words, hides in zip(captions, dropped_B.tolist(), strict=True))


def save_encoder(encoder: torch.nn.Module, folder: Path) -> None:
    """Configuration and weights: of CLIP in the layout with a prefix that readers elsewhere expect, of T5 as it is."""
    cast(Any, encoder).config.save_pretrained(folder)
    found = encoder.state_dict()
    if text_names.T5_TABLE in found:
        found = {name: tensor for name, tensor in found.items() if name not in text_names.T5_COPIES}
    else:
        found = text_names.as_written(found)
    weights.write(folder / "model.safetensors", found)


def load_encoder(encoder: torch.nn.Module, folder: Path) -> None:
    """Weights in either layout."""
    path, own = folder / "model.safetensors", encoder.state_dict()
    tensors = text_names.as_class(text_names.as_written(weights.read(path)), own)
    weights.check_fit(own, tensors, where=path)
    encoder.load_state_dict(tensors)


def tokens(tokenizer: Any, captions: Sequence[str], *, windows: int) -> torch.Tensor:
    """Token numbers, captions x windows x length; each window begins and ends as a caption of its own does."""
    inside = tokenizer.model_max_length - 2
    start, end, pad = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    rows = []
    for caption in captions:
        found = _plain(tokenizer, caption)
        for first in range(0, windows * inside, inside):
            part = [start, *found[first : first + inside], end]
            rows.append(part + [pad] * (inside + 2 - len(part)))
    return torch.tensor(rows).reshape(len(captions), windows, inside + 2)


def cut_off(tokenizer: Any, caption: str, *, windows: int) -> str:
    """The end of a caption that does not fit into its windows; mostly nothing."""
    rest = _plain(tokenizer, caption)[windows * (tokenizer.model_max_length - 2) :]
    return str(tokenizer.decode(rest)) if rest else ""


def cuts(tokenizer: Any, names: Sequence[str], captions: Sequence[str], *, windows: int) -> Iterator[Notice]:
    """What to say of captions that do not fit, by the names of their images."""
    cut = [
        f"'{name}' ({len(_plain(tokenizer, caption))} tokens) loses \"{_shortened(rest)}\""
        for name, caption in zip(names, captions, strict=False)
        if (rest := cut_off(tokenizer, caption, windows=windows))
    ]
    if cut:
        shown = "; ".join(cut[:CUTS_SHOWN]) + (f" and {len(cut) - CUTS_SHOWN:,} more" if cut[CUTS_SHOWN:] else "")
        limit = windows * (tokenizer.model_max_length - 2)
        yield Notice("W-MODEL-001", count=f"{len(cut):,}", limit=limit, shown=shown)


def _shortened(rest: str) -> str:
    return rest if len(rest) <= LONGEST_SHOWN else f"{rest[:LONGEST_SHOWN].rstrip()}…"


def states(encoder: torch.nn.Module, tokens_BWL: torch.Tensor, *, clip_skip: int) -> torch.Tensor:
    """The last hidden state of each token, or that of an earlier layer, windows one after the other."""
    batch, windows, length = tokens_BWL.shape
    ids = tokens_BWL.reshape(batch * windows, length)
    if not clip_skip:
        hidden = encoder(ids)[0]
    else:
        # The last norm belongs to what the denoiser was trained on, whichever layer the state comes from.
        outputs = encoder(ids, output_hidden_states=True)
        hidden = cast(Any, getattr(encoder, "text_model", encoder)).final_layer_norm(
            outputs.hidden_states[-(clip_skip + 1)]
        )
    return cast(torch.Tensor, hidden).reshape(batch, windows * length, -1)


def states_and_pooled(
    encoder: torch.nn.Module, tokens_BWL: torch.Tensor, *, clip_skip: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The last hidden state but one of each token, without the last norm, and what an encoder makes of a whole text.

    That is the state at the end of the first window, projected where the encoder has a projection.
    """
    batch, windows, length = tokens_BWL.shape
    outputs = encoder(tokens_BWL.reshape(batch * windows, length), output_hidden_states=True)
    hidden = cast(torch.Tensor, outputs.hidden_states[-(clip_skip + 2)]).reshape(batch, windows * length, -1)
    whole = outputs.text_embeds if "text_embeds" in outputs else outputs.pooler_output
    return hidden, cast(torch.Tensor, whole).reshape(batch, windows, -1)[:, 0]


def _plain(tokenizer: Any, caption: str) -> list[int]:
    """The caption's own tokens; the tokenizer's warning about long ones is left to `cut_off`."""
    return new_words.expanded(tokenizer, tokenizer(caption, add_special_tokens=False, verbose=False)["input_ids"])
