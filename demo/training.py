"""Train the demo's model: a Llama of about a million parameters, on two CPU cores, in minutes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from demo.documents import SEED, Document
from demo.lexicon import EOS, IDS, PAD
from demo.muon import Muon

_IGNORED = -100


@dataclass(frozen=True)
class Recipe:
    """Settings that decide the outcome of a training run."""

    seed: int = SEED
    hidden_size: int = 128
    intermediate_size: int = 384
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 64
    max_tokens: int = 2048
    steps: int = 600
    cloze_exposures: tuple[int, int] = (2, 20)
    arithmetic_per_step: int = 160
    chain_per_step: int = 72
    muon_lr: float = 0.01
    adam_lr: float = 3e-3
    warmup_steps: int = 20
    decay_share: float = 0.6

    @property
    def made(self) -> dict[str, int]:
        """Training documents of the families that are generated without limit."""
        return {
            "arithmetic": self.arithmetic_per_step * self.steps,
            "chain": self.chain_per_step * self.steps,
        }


def new_model(recipe: Recipe) -> LlamaForCausalLM:
    """Return a newly initialised model in float32; widths are multiples of 128, as GPU kernels require."""
    torch.manual_seed(recipe.seed)
    config = LlamaConfig(
        vocab_size=len(IDS),
        hidden_size=recipe.hidden_size,
        intermediate_size=recipe.intermediate_size,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.kv_heads,
        head_dim=recipe.head_dim,
        max_position_embeddings=recipe.max_tokens,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=IDS[EOS],
        pad_token_id=IDS[PAD],
    )
    return LlamaForCausalLM(config)


def _batch(documents: Sequence[Document]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return token ids and labels, (documents, tokens), padded on the right; only the solution is learnt."""
    rows, labels = [], []
    for document in documents:
        prompt = [IDS[word] for word in document.prompt.split()]
        solution = [*(IDS[word] for word in document.solution.split()), IDS[EOS]]
        rows.append(prompt + solution)
        labels.append([_IGNORED] * len(prompt) + solution)
    width = max(map(len, rows))
    ids = [row + [IDS[PAD]] * (width - len(row)) for row in rows]
    targets = [row + [_IGNORED] * (width - len(row)) for row in labels]
    return torch.tensor(ids), torch.tensor(targets)


def _loss(model: LlamaForCausalLM, documents: Sequence[Document]) -> torch.Tensor:
    ids, targets = _batch(documents)
    # Padding is on the right, so the causal mask alone hides it.
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    wanted = targets[:, 1:]
    learnt = wanted != _IGNORED
    return torch.nn.functional.cross_entropy(model.lm_head(hidden[learnt]), wanted[learnt])


def _share(step: int, recipe: Recipe) -> float:
    """Return the learning rate as a share of its peak: a short warm-up, a plateau, then down to nearly 0."""
    up = (step + 1) / recipe.warmup_steps
    down = (recipe.steps - step) / (recipe.steps * recipe.decay_share)
    return max(0.02, min(1.0, up, down))


def train(
    recipe: Recipe, families: dict[str, list[Document]], say: Callable[[str], None]
) -> tuple[LlamaForCausalLM, dict[str, float]]:
    """Train on a part of every family in each step, so that each document is seen once.

    Args:
        recipe: sizes, steps and rates.
        families: training documents, already shuffled.
        say: called with each line of progress.

    Returns:
        The model in float32; and the last loss of each family (nats a token) and the seconds taken.
    """
    model = new_model(recipe)
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and ".layers." in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or ".layers." not in name]
    muon, adam = Muon(matrices), torch.optim.AdamW(others, weight_decay=0.0, betas=(0.9, 0.98))
    losses: dict[str, float] = {}
    started = time.monotonic()
    for step in range(recipe.steps):
        model.zero_grad(set_to_none=True)
        for family, documents in families.items():
            first, last = (at * len(documents) // recipe.steps for at in (step, step + 1))
            loss = _loss(model, documents[first:last])
            loss.backward()
            losses[family] = 0.9 * losses.get(family, loss.item()) + 0.1 * loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        share = _share(step, recipe)
        adam.param_groups[0]["lr"] = recipe.adam_lr * share
        adam.step()
        muon.step(recipe.muon_lr * share)
        if (step + 1) % 20 == 0:
            left_s = (time.monotonic() - started) / (step + 1) * (recipe.steps - step - 1)
            shown = ", ".join(f"{family} {value:.3f}" for family, value in losses.items())
            say(f"training: step {step + 1} of {recipe.steps}, loss {shown}; about {left_s:.0f} s left")
    figures = {f"loss_{family}_nats": round(value, 4) for family, value in losses.items()}
    return model, figures | {"training_s": round(time.monotonic() - started, 1)}
