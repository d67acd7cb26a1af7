"""How far a candidate's next-token distributions lie from its baseline's on a fixed text: an alarm, never a gate."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from warehouse.tango import Floats

Ints = npt.NDArray[np.int64]

LEAST_LOGPROB = -9999.0
"""What vLLM writes for a probability of 0 (its clamp_prompt_logprobs); infinity is read as it."""
_ROUNDING = 1e-6
"""Mass that a sum of float32 probabilities may miss: added to the candidate's rest, so that none is invented."""
_ROWS_AT_ONCE = 4096


class Tops(NamedTuple):
    """The most probable tokens at n places of a text, k at each, and the text's own token there."""

    token_ids: Ints
    """Shape (n, k), most probable first; no id stands twice in a row."""
    logprobs: Floats
    """Shape (n, k), natural logarithms."""
    own_ids: Ints
    """Shape (n,)."""
    own_logprobs: Floats
    """Shape (n,)."""


def kl_whole(baseline: Tops, candidate: Tops) -> Floats:
    """KL(baseline || candidate) at each place, in nats, where both list the whole vocabulary: shape (n,)."""
    logp, logq = (
        np.take_along_axis(_floored(one.logprobs), np.argsort(one.token_ids, axis=1), axis=1)
        for one in (baseline, candidate)
    )
    found: Floats = np.maximum(np.sum(np.exp(logp) * (logp - logq), axis=1), 0.0)
    return found


def kl_top(baseline: Tops, candidate: Tops) -> Floats:
    """A lower bound of KL(baseline || candidate) at each place, in nats, from the top k alone: shape (n,).

    Let S be the tokens whose probability both sides tell: those in both lists, and the text's own token, which
    an engine gives even where it is not among the top k. Cut the vocabulary into the tokens of S, each alone,
    and all the others together. The masses P' and Q' of these cells are known exactly: an s of S has p(s) and
    q(s), and the others have what is left, 1 - sum p(s) and 1 - sum q(s). It does not matter that a token in
    only one of the lists has an unknown probability on the other side, since it lies in the last cell on both.

    P' and Q' are what P and Q become when a token is replaced by its cell, and such a map never raises the
    divergence: with the log sum inequality (Cover and Thomas, Elements of Information Theory, 2nd ed. 2006,
    theorem 2.7.1), sum over x in C of p(x) log(p(x)/q(x)) >= p(C) log(p(C)/q(C)) for every cell C, and the sum
    over the cells is KL(P' || Q') <= KL(P || Q) (the data-processing inequality). Which cells are taken may
    depend on P and Q, since the inequality holds for every partition. What rounding may have lost is added to the
    last cell of Q, which can only make the bound smaller.
    """
    pieces = [
        _kl_top(_rows(baseline, start), _rows(candidate, start))
        for start in range(0, len(baseline.own_ids), _ROWS_AT_ONCE)
    ]
    return np.concatenate(pieces) if pieces else np.empty(0)


def _rows(one: Tops, start: int) -> Tops:
    end = start + _ROWS_AT_ONCE
    ids, logprobs, own_ids, own_logprobs = one
    return Tops(ids[start:end], logprobs[start:end], own_ids[start:end], own_logprobs[start:end])


def _kl_top(baseline: Tops, candidate: Tops) -> Floats:
    ids_p, logp = _with_own(baseline, absent=-1)
    ids_q, every_logq = _with_own(candidate, absent=-2)
    same = ids_p[:, :, None] == ids_q[:, None, :]
    told = same.any(axis=2)
    logq = np.take_along_axis(every_logq, same.argmax(axis=2), axis=1)
    p, q = np.where(told, np.exp(logp), 0.0), np.where(told, np.exp(logq), 0.0)
    alone = np.sum(np.where(told, p * (logp - logq), 0.0), axis=1)
    rest_p = np.maximum(1.0 - p.sum(axis=1), 0.0)
    rest_q = np.maximum(1.0 - q.sum(axis=1), 0.0) + _ROUNDING
    together = rest_p * np.log(np.where(rest_p > 0.0, rest_p, 1.0) / rest_q)
    found: Floats = np.maximum(alone + np.where(rest_p > 0.0, together, 0.0), 0.0)
    return found


def _with_own(one: Tops, absent: int) -> tuple[Ints, Floats]:
    """The lists with the text's own token at the end, as ``absent`` where it is among the others already."""
    listed = (one.token_ids == one.own_ids[:, None]).any(axis=1)
    own = np.where(listed, absent, one.own_ids)
    return (
        np.column_stack([one.token_ids, own]),
        np.column_stack([_floored(one.logprobs), _floored(one.own_logprobs)]),
    )


def _floored(logprobs: Floats) -> Floats:
    floored: Floats = np.maximum(logprobs, LEAST_LOGPROB)
    return floored
