"""Reconstruction: people's own numbers from sums that hold too few of them, or from two sums that differ by one.

Gradient inversion [1]. The gradient of a layer is the outer product of its error and its input (x, 1); so in the
gradient of one person, scaled or not, any unit's weights over that unit's bias are x, exactly. Of a sum over people the
same quotient is a mean weighted by errors, and noise in the bias spoils it; the attack then returns a guess like any
other.

Subtraction [2]. Two exact tables over people who differ by one person are that person's row. It works whatever the
number of people, which is why no minimum cell prevents it.

[1] Geiping et al.: Inverting Gradients, NeurIPS 2020, proposition 3.1.
[2] Denning: Inference controls for statistical databases (the tracker), ACM TODS 4 (1979).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from strategies.analysis import Answer
from strategies.cohort import MISSING
from strategies.learning.train import MOST_INPUT, Shapes

NOT_TOLD = 255
"""The code of a genotype that two answers do not tell."""


def inverted(shapes: Shapes, gradient: NDArray[np.float64]) -> tuple[NDArray[np.float64], float | None]:
    """The input and the label that a gradient came from, if it was one person's.

    Args:
        shapes: the model's layers.
        gradient: (d,) a person's gradient or a released sum.

    Returns:
        (inputs,) within the range of inputs; NaN where the first layer's biases are all zero, as a person's are whom no
        hidden unit sees. The label 0 or 1, from the sign of the output's error p - y; None where that is zero.
    """
    layers = shapes.arrays(gradient)
    weight, bias = layers["0.weight"], layers["0.bias"]
    unit = int(np.argmax(np.abs(bias)))  # the largest is divided by with the least rounding
    with np.errstate(invalid="ignore", divide="ignore"):
        x = np.clip(weight[unit] / bias[unit], -MOST_INPUT, MOST_INPUT)
    error = float(layers["2.bias" if shapes.hidden else "0.bias"][0])
    return np.asarray(x, dtype=np.float64), None if error == 0 else float(error < 0)


def genotypes(x: NDArray[np.float64], steps: NDArray[np.float64]) -> NDArray[np.uint8]:
    """(M,) the genotype whose input is nearest to each of the (M,) reconstructed ones.

    Args:
        x: (M,) reconstructed inputs; NaN is told as NOT_TOLD.
        steps: (M, 3) what a person with 0, 1 and 2 alternate alleles enters.
    """
    nearest = np.abs(np.nan_to_num(x)[:, None] - steps).argmin(axis=1)
    return np.where(np.isfinite(x), nearest, NOT_TOLD).astype(np.uint8)


def between(larger: Answer, smaller: Answer) -> NDArray[np.uint8]:
    """(M,) genotypes of the one person whom two exact genotype counts differ by [2].

    Args:
        larger, smaller: answers with and without the person.

    Returns:
        0, 1, 2 or MISSING; NOT_TOLD where either answer withholds the row or they differ by something else.

    >>> from types import SimpleNamespace
    >>> def counts(*row):
    ...     cells = dict(zip(("hom_ref", "het", "hom_alt", "missing"), np.array(row, dtype=float)[:, None]))
    ...     return SimpleNamespace(tables={"frequencies": cells})
    >>> between(counts(30, 12, 7, 0), counts(30, 11, 7, 0)).tolist()
    [1]
    """
    with_person, without = (_cells(answer) for answer in (larger, smaller))
    step = with_person - without
    one = (step.sum(axis=1) == 1) & (np.sort(step, axis=1)[:, :3] == 0).all(axis=1)
    codes = np.array([0, 1, 2, MISSING], dtype=np.uint8)[np.nan_to_num(step).argmax(axis=1)]
    return np.where(one, codes, NOT_TOLD).astype(np.uint8)


def _cells(answer: Answer) -> NDArray[np.float64]:
    table = answer.tables["frequencies"]
    return np.stack([np.asarray(table[c], dtype=np.float64) for c in ("hom_ref", "het", "hom_alt", "missing")], axis=1)
