"""How likely an association is found, and how exact its effect is, by minor allele frequency, effect and people.

With residuals of standard deviation 1, an effect b and residual degrees of freedom d, t^2 follows the noncentral F
distribution with 1 and d degrees and noncentrality b^2 S, where S is the genotypes' sum of squares given the covariates
[1, section 5.4]. S itself varies with who is sampled: in Hardy-Weinberg proportions, independent of the covariates, its
mean is 2 f (1 - f) (n - q - 1) and its squared coefficient of variation (1 / (2 f (1 - f)) - 1) / n for q covariates;
power and standard error are averages over a gamma distribution with these. Noise plays no part: the answer is exact.

[1] Seber, Lee: Linear Regression Analysis, 2nd edition (2003).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats
from scipy.optimize import brentq

from fl_server.planning.ticks import ticks

MINOR = (0.01, 0.05, 0.1, 0.25, 0.5)
EFFECTS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""In residual standard deviations for each alternate allele."""

WANTED = 0.8
"""The power that is usually asked for."""

MOST_EFFECT = 100.0

FEWEST_ALLELES = 5
"""Where fewer minor alleles than this are expected, a row is likely to be withheld, and nothing is foretold."""

LEAST_NONCENTRALITY, MOST_NONCENTRALITY = 1e-12, 1e8
"""scipy's survival function of the noncentral F is wrong at 0 (1.17: it says -0.99 for 0.01) and slow beyond this."""

_QUANTILES = (np.arange(40) + 0.5) / 40


@dataclass(frozen=True)
class Row:
    """What to expect at one minor allele frequency.

    Attributes:
        minor: the minor allele frequency.
        standard_error: of beta, in residual standard deviations.
        detectable: the least effect that is found with a power of 80 %; None if none is.
        explained: the share of the residual variance that it explains.
        power: effect -> probability that it is found.
    """

    minor: float
    standard_error: float
    detectable: float | None
    explained: float | None
    power: Mapping[float, float]


@dataclass(frozen=True)
class Power:
    """What to expect of an association.

    Attributes:
        people: at all sites together, all taken to have trait, covariates and genotype.
        covariates: how many.
        levels: level of significance -> what to expect at each minor allele frequency.
    """

    people: int
    covariates: int
    levels: Mapping[float, tuple[Row, ...]]


@dataclass(frozen=True)
class Regression:
    """One regression of a trait on a genotype.

    Attributes:
        people: with trait, covariates and genotype.
        covariates: how many besides the intercept.
        minor: the minor allele frequency.
    """

    people: int
    covariates: int
    minor: float

    @property
    def degrees(self) -> int:
        """Residual degrees of freedom; at least 1 where anything is foretold."""
        return self.people - self.covariates - 2

    @property
    def squares(self) -> NDArray[np.float64]:
        """(40,) equally likely values of S."""
        h = 2 * self.minor * (1 - self.minor)
        variation = (1 / h - 1) / self.people
        mean = h * (self.people - self.covariates - 1)
        return np.asarray(stats.gamma.ppf(_QUANTILES, 1 / variation, scale=mean * variation), dtype=np.float64)

    def power(self, effect: float, level: float) -> float:
        """The probability that p lies below `level`.

        >>> round(Regression(10_000, 4, 0.25).power(0.0, 0.05), 3)
        0.05
        """
        noncentrality = np.clip(effect**2 * self.squares, LEAST_NONCENTRALITY, MOST_NONCENTRALITY)
        beyond = special.stdtrit(self.degrees, level / 2) ** 2
        return float(stats.ncf.sf(beyond, 1, self.degrees, noncentrality).mean())

    def standard_error(self) -> float:
        """The expected standard error of beta, in residual standard deviations."""
        # E sqrt(chi^2_d / d), which is below 1
        root = math.exp(special.gammaln((self.degrees + 1) / 2) - special.gammaln(self.degrees / 2))
        return float(np.mean(self.squares**-0.5)) * root / math.sqrt(self.degrees / 2)

    def detectable(self, level: float) -> float | None:
        """The least effect that is found with a power of 80 %."""
        if self.power(MOST_EFFECT, level) < WANTED:
            return None

        def lacking(log_effect: float) -> float:
            return self.power(math.exp(log_effect), level) - WANTED

        return math.exp(brentq(lacking, math.log(1e-7), math.log(MOST_EFFECT)))


def foretold(people: int, covariates: int, minor: float) -> bool:
    """Whether there is enough for a regression whose outcome can be foretold."""
    return people > covariates + 2 and 2 * people * minor >= FEWEST_ALLELES


def power(people: int, covariates: int, levels: Sequence[float]) -> Power:
    """What to expect of an association at these levels of significance."""
    return Power(people, covariates, {level: _rows(people, covariates, level) for level in levels})


def _rows(people: int, covariates: int, level: float) -> tuple[Row, ...]:
    """What to expect at common minor allele frequencies; those that are too rare for so few people are left out."""
    out = []
    for minor in MINOR:
        if not foretold(people, covariates, minor):
            continue
        one = Regression(people, covariates, minor)
        least = one.detectable(level)
        h = 2 * minor * (1 - minor)
        explained = None if least is None else h * least**2 / (1 + h * least**2)
        out.append(Row(minor, one.standard_error(), least, explained, {b: one.power(b, level) for b in EFFECTS}))
    return tuple(out)


def draw_power(expected: Power, level: float, axes: Any) -> str:
    """Draw power over effect, one line a minor allele frequency; returns the figure in words."""
    people, covariates = expected.people, expected.covariates
    effects = np.geomspace(0.01, 3.0, 60)
    for number, minor in enumerate(MINOR):
        if foretold(people, covariates, minor):
            one = Regression(people, covariates, minor)
            axes.plot(effects, [one.power(float(b), level) for b in effects], **_style(number))
    axes.set_xscale("log")
    axes.set_xticks([0.01, 0.03, 0.1, 0.3, 1, 3], ["0.01", "0.03", "0.1", "0.3", "1", "3"])
    axes.minorticks_off()
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("effect of an allele, residual standard deviations")
    axes.set_ylabel(f"power at p < {level:g}")
    axes.legend(title="minor allele frequency", loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    return f"Power over the effect of an allele for {people:,} people, by minor allele frequency, at p < {level:g}."


def draw_detectable(expected: Power, level: float, axes: Any) -> str:
    """Draw the detectable effect over the number of people; returns the figure in words."""
    people, covariates = expected.people, expected.covariates
    counts = [round(people * times) for times in (0.25, 0.5, 1, 2, 4, 8, 16)]
    for number, minor in enumerate(MINOR):
        able = [n for n in counts if foretold(n, covariates, minor)]
        found = [Regression(n, covariates, minor).detectable(level) for n in able]
        axes.plot(able, [np.nan if b is None else b for b in found], **_style(number))
    axes.axvline(people, color="C2", linewidth=1, linestyle=(0, (5, 3)))
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_yticks(*ticks(*axes.get_ylim()))
    axes.set_xticks(counts[::2], [f"{n:,}" for n in counts[::2]])
    axes.minorticks_off()
    axes.set_xlabel("people at all sites together")
    axes.set_ylabel("effect found with 80 % power")
    axes.legend(title="minor allele frequency", loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    return f"Effect that is found with a power of 80 % over the number of people; {people:,} are there (dashed line)."


def _style(number: int) -> dict[str, Any]:
    dashes = "-" if number < 3 else (0, (2, 1.5))
    return {"color": f"C{number % 3}", "linewidth": 1.6, "linestyle": dashes, "label": f"{MINOR[number]:g}"}
