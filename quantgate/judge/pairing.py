"""Pair the samples of two runs, task by task, where they may be compared."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from quantgate.judge.stats.baseline_score import BaselineScore, score_of_documents
from quantgate.judge.stats.tango import Floats, Ints
from quantgate.model.enums import Family

DOCUMENT = ["doc_id", "doc_repeat"]
"""Columns that name a document."""

_MUST_EQUAL = {
    "prompt_hash": "prompt",
    "doc_hash": "document",
    "target_hash": "target",
    "metric": "metric",
    "filter": "filter",
    "cluster": "cluster",
}


class DeclaredTask(Protocol):
    """A task as a suite declares it or a finished run reports it."""

    @property
    def task(self) -> str:
        """The task's name."""

    @property
    def family(self) -> Family:
        """The family, which sets its margin."""

    @property
    def filter(self) -> str | None:
        """The filter whose answers are scored; None where the samples have only one."""


class Pairs(NamedTuple):
    """Scores of the same documents, each of shape (n,), n at least 1, in a random order fixed in advance."""

    baseline: Floats
    """Fractions from 0 to 1."""
    candidate: Floats
    clusters: Ints | None = None
    """Each document's cluster, numbered from 0; None where no two documents share one."""
    graded: bool = False
    """True if documents not answered yet have scores between 0 and 1: then all count as such."""
    whole: BaselineScore | None = None
    """The baseline's score on all that it answered; None where these pairs are all."""

    @property
    def differences(self) -> Floats:
        """Candidate - baseline, shape (n,)."""
        return self.candidate - self.baseline


class Counts(NamedTuple):
    """How many pairs of a task there are of each kind: all that the test of right/wrong scores needs."""

    pairs: int
    worse: int
    better: int
    baseline_right: int
    candidate_right: int
    whole: BaselineScore | None = None
    """The baseline's score on all that it answered; None where these pairs are all."""


class Unpaired(NamedTuple):
    """Why two samples of a task can't be compared."""

    reason: str


class Unmeasured(NamedTuple):
    """A declared task that the candidate has no samples of."""

    task: str


def pair_task(
    baseline: pa.Table, candidate: pa.Table, declared: DeclaredTask
) -> Pairs | Unpaired | Unmeasured:
    """Pair the documents of one task.

    Every document of either side must have its counterpart, with the same prompt, document, target, metric
    and filter, and a score from 0 to 1: a document left out could be one that the candidate got wrong.

    Args:
        baseline: samples of the baseline (``quantgate.bundles.schema.SAMPLES``).
        candidate: samples of the candidate.
        declared: the task.

    Returns:
        The pairs; or why there are none, with the task's name and the number of documents concerned.
    """
    baseline, candidate = _rows(baseline, declared), _rows(candidate, declared)
    name = declared.task
    if candidate.num_rows == 0:
        return Unmeasured(name)
    for side, rows in (("baseline", baseline), ("candidate", candidate)):
        filters = sorted(rows["filter"].unique().to_pylist())
        if len(filters) > 1:
            return Unpaired(
                f"task {name}: the {side}'s samples have the filters {', '.join(filters)}: name one"
            )
        repeated = rows.num_rows - rows.group_by(DOCUMENT).aggregate([]).num_rows
        if repeated:
            return Unpaired(f"task {name}: {_documents(repeated)} twice in the {side}'s samples")
    joined = baseline.join(
        candidate, keys=DOCUMENT, join_type="full outer", left_suffix="_baseline", right_suffix="_candidate"
    ).sort_by([(column, "ascending") for column in DOCUMENT])
    only_candidate = joined["doc_hash_baseline"].null_count
    only_baseline = joined["doc_hash_candidate"].null_count
    if only_candidate or only_baseline:
        return Unpaired(
            f"task {name}: {_documents(only_candidate + only_baseline)} without a pair"
            f" ({only_baseline} only in the baseline, {only_candidate} only in the candidate)"
        )
    for column, what in _MUST_EQUAL.items():
        sides = (joined[f"{column}_{side}"].fill_null("") for side in ("baseline", "candidate"))
        differ = pc.sum(pc.not_equal(*sides)).as_py()
        if differ:
            return Unpaired(f"task {name}: the {what} differs on {differ} of {_documents(joined.num_rows)}")
    return _scores(joined, name)


def counts_of(pairs: Pairs) -> Counts | None:
    """Count the pairs of each kind; None where a score is neither 0 nor 1."""
    if pairs.graded or not all(map(_right_or_wrong, (pairs.baseline, pairs.candidate))):
        return None
    return Counts(
        pairs.baseline.size,
        int(np.count_nonzero(pairs.candidate < pairs.baseline)),
        int(np.count_nonzero(pairs.candidate > pairs.baseline)),
        int(np.count_nonzero(pairs.baseline)),
        int(np.count_nonzero(pairs.candidate)),
        pairs.whole,
    )


def whole_score(baseline: pa.Table, declared: DeclaredTask) -> BaselineScore:
    """Return a baseline's score on all documents of a task that it answered, wherever a candidate stopped.

    Args:
        baseline: samples, of one document of the task at least.
        declared: the task.
    """
    rows = _rows(baseline, declared).sort_by("position")
    named = [(number,) if name is None else name for number, name in enumerate(rows["cluster"].to_pylist())]
    _, clusters = np.unique([repr(name) for name in named], return_inverse=True)
    shared = clusters.max() + 1 < clusters.size
    return score_of_documents(rows["score"].to_numpy(), clusters if shared else None)


def _rows(samples: pa.Table, declared: DeclaredTask) -> pa.Table:
    """Return the samples of one task, without the texts."""
    wanted = pc.equal(samples["task"], declared.task)
    if declared.filter is not None:
        wanted = pc.and_(wanted, pc.equal(samples["filter"], declared.filter))
    return samples.select([*DOCUMENT, *_MUST_EQUAL, "score", "position"]).filter(wanted)


def _scores(joined: pa.Table, name: str) -> Pairs | Unpaired:
    """Return the scores of paired documents, if all are numbers from 0 to 1."""
    joined = _in_declared_order(joined)
    scores = {
        side: joined[f"score_{side}"].to_numpy().astype(np.float64, copy=False)
        for side in ("baseline", "candidate")
    }
    for side, values in scores.items():
        broken = int(np.count_nonzero(~np.isfinite(values)))
        if broken:
            return Unpaired(f"task {name}: the {side}'s score is not a number on {_documents(broken)}")
        outside = int(np.count_nonzero((values < 0) | (values > 1)))
        if outside:
            return Unpaired(f"task {name}: the {side}'s score is not from 0 to 1 on {_documents(outside)}")
    return Pairs(scores["baseline"], scores["candidate"], _clusters(joined))


def _in_declared_order(joined: pa.Table) -> pa.Table:
    """Sort the documents as the candidate was asked them; where that was not recorded, shuffle them by content."""
    if joined["position_candidate"].null_count == 0:
        return joined.sort_by("position_candidate")
    return joined.take(pa.array(np.argsort(np.array(_draws(joined)), kind="stable")))


def _draws(joined: pa.Table) -> list[str]:
    """Return a random number of each document, as hexadecimal digits, by its prompt and target: no name moves it."""
    columns = (joined[f"{name}_baseline"].to_pylist() for name in ("prompt_hash", "target_hash"))
    return [hashlib.sha256(repr(hashes).encode()).hexdigest() for hashes in zip(*columns, strict=True)]


def _clusters(joined: pa.Table) -> Ints | None:
    """Return numbers for the names of clusters; a document without a name is a cluster of its own.

    The betting test goes through them in this order, so it is random and depends only on what their documents ask. In
    the order of names, kinds that sort together would follow each other and win capital before the first broken one
    is seen.
    """
    names = joined["cluster_baseline"]
    if names.null_count == len(names):
        return None
    keys = zip(*(joined[column].to_pylist() for column in DOCUMENT), strict=True)
    members: dict[Any, list[tuple[str, int]]] = defaultdict(list)
    for index, (name, key, draw) in enumerate(zip(names.to_pylist(), keys, _draws(joined), strict=True)):
        members[key if name is None else name].append((draw, index))
    ordered = sorted(members.values(), key=lambda cluster: _draw_of(draw for draw, _ in cluster))
    numbers = np.empty(len(names), np.int64)
    for number, cluster in enumerate(ordered):
        numbers[[index for _, index in cluster]] = number
    return numbers if len(ordered) < numbers.size else None


def _draw_of(draws: Iterable[str]) -> str:
    """Return a random number of a cluster from those of its documents; large clusters come no earlier than small."""
    return hashlib.sha256("".join(sorted(draws)).encode()).hexdigest()


def shares_clusters(samples: pa.Table, task: str, available: int | None) -> bool:
    """Check whether documents of a task share a cluster (subject, passage), or may, as some unanswered ones could.

    Args:
        samples: of a baseline.
        task: the task's name.
        available: documents that the task has, where that is known.
    """
    clusters = samples.filter(pc.equal(samples["task"], task))["cluster"]
    named = clusters.drop_null()
    return len(named.unique()) < len(named) or 0 < len(named) <= len(clusters) < (available or 0)


def is_graded(samples: pa.Table, task: str) -> bool:
    """Check whether a task has scores other than 0 and 1."""
    return not _right_or_wrong(samples.filter(pc.equal(samples["task"], task))["score"].to_numpy())


def _right_or_wrong(scores: Floats) -> bool:
    return bool(np.isin(scores, (0.0, 1.0)).all())


def _documents(count: int) -> str:
    return f"{count} document{'' if count == 1 else 's'}"
