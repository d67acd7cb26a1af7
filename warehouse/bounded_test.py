"""A valid test of a paired quality delta for scores that are not just right or wrong, from 0 to 1.

Per document d = candidate - baseline lies between -1 and 1, and H0 says that its mean is at most m. Whoever
bets the share 0 <= k <= 1 of the largest safe stake on each document multiplies the capital by

    1 + k (d - m) / (1 + m),

which is never negative and under H0 isn't expected to grow. So the capital, averaged over shares that are
fixed in advance, reaches 1 / alpha with probability at most alpha (Markov), whatever the distribution of d:
1 / capital is a p-value. It adapts to the variance, needs no normal limit and is not fooled by differences
that are all 0, where it gives (1 - margin)^n up to the factor of the average.

Source: I. Waudby-Smith and A. Ramdas, "Estimating means of bounded random variables by betting", Journal of
the Royal Statistical Society B 86 (2024) 1-27; averaging over stakes as in F. Orabona and K.-S. Jun, IEEE
Transactions on Information Theory 70 (2024) 436-455. It is valid, and takes more documents than the exact
test does for right/wrong scores.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import brentq
from scipy.special import logsumexp
from scipy.stats import norm

from warehouse.tango import Floats, Interval

_SHARES: Floats = 2.0 ** (-np.arange(16) / 2)
"""Shares of the largest safe stake, from all of it to 1/181: the best one is about margin / variance of d."""


def p_noninferior_bounded(differences: Floats, margin: float) -> float:
    """P-value of H0: mean difference <= -margin, for independent differences from -1 to 1.

    Args:
        differences: candidate - baseline per document, shape (n,), fractions.
        margin: the loss that would matter, a fraction from 0 to below 1.

    Returns:
        The p-value: if H0 is true, it is at most alpha with probability at most alpha.
    """
    return math.exp(-max(0.0, _log_capital(differences, -margin)))


def p_inferior_bounded(differences: Floats, margin: float) -> float:
    """P-value of H0: mean difference >= -margin; at margin 0 a small one shows some loss, however slight.

    Args and returns are those of ``p_noninferior_bounded``.
    """
    return math.exp(-max(0.0, _log_capital(-differences, margin)))


def bounded_interval(differences: Floats, alpha: float) -> Interval:
    """The two-sided 1 - 2 alpha interval of the mean difference: every value that neither test refuses."""
    low, high = _lower_bound(differences, alpha), -_lower_bound(-differences, alpha)
    return Interval(low, high)


def documents_needed_bounded(
    flip_rate: float, margin: float, alpha: float, power: float, delta: float = 0.0
) -> int:
    """Paired documents that show non-inferiority: ``exact_test.documents_needed`` with this test's threshold.

    The flip rate, the share of documents whose scores differ, is an upper bound of the variance. The best of
    the stakes must win the number of stakes over alpha, which is sqrt(2 log(stakes / alpha)) standard errors.
    """
    z = math.sqrt(2 * math.log(_SHARES.size / alpha)) + float(norm.ppf(power))
    return math.ceil(flip_rate * z**2 / (margin + delta) ** 2)


def _log_capital(differences: Floats, mean: float) -> float:
    """Logarithm of the average capital of bets against H0: mean difference <= ``mean``, from -1 to 1."""
    values, documents = np.unique(differences, return_counts=True)
    gain = np.maximum((values - mean) / (1 + mean), -1.0)
    with np.errstate(divide="ignore"):
        log_capitals = np.log1p(_SHARES[:, None] * gain) @ documents.astype(np.float64)
    return float(logsumexp(log_capitals) - math.log(_SHARES.size))


def _lower_bound(differences: Floats, alpha: float) -> float:
    """The least mean that the bets do not refuse; the capital falls with the mean that H0 claims."""
    threshold = -math.log(alpha)
    left, right = -1 + 1e-9, float(differences.mean())
    if right <= left or _log_capital(differences, left) < threshold:
        return -1.0
    return float(brentq(lambda mean: _log_capital(differences, mean) - threshold, left, right, xtol=1e-9))
