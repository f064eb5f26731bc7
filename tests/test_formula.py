"""Formulas: what is read, what it becomes, what bounds it has, and what is said about everything else."""

from __future__ import annotations

import numpy as np
import pytest

from strategies.analyses.regression import Regression
from strategies.analysis import Range, names_of
from strategies.errors import UsageError
from strategies.formula import MOST_CHARACTERS, parse

RANGES = {
    "age": Range(18.0, 100.0),
    "sex": Range.of("female", "male"),
    "bmi": Range(10.0, 60.0),
    "smoking": Range.of("never", "former", "current"),
    "change": Range(-3.0, 2.0),
    "far-off": Range(0.0, 1.0),
    "prs.score": Range(-32.0, 32.0),
    "region": Range.of(*map(str, range(40))),
    "hospital": Range.of(*map(str, range(40))),
}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("age", ["(intercept)", "age"]),
        ("age + age + sex", ["(intercept)", "age", "sex[male]"]),
        ("1", ["(intercept)"]),
        ("0.5e1", None),
        ("age - 1", ["age"]),
        ("smoking - 1", ["smoking[never]", "smoking[former]", "smoking[current]"]),
        ("smoking + sex - 1", ["smoking[never]", "smoking[former]", "smoking[current]", "sex[male]"]),
        ('C(smoking, ref = "former")', ["(intercept)", "smoking[never]", "smoking[current]"]),
        ("age*sex", ["(intercept)", "age", "sex[male]", "age:sex[male]"]),
        ("age:bmi", ["(intercept)", "age:bmi"]),
        ("age^2 + log(bmi)", ["(intercept)", "age^2", "log(bmi)"]),
        ("spline(age, 40, 50, 60)", ["(intercept)", "spline(age)[1]", "spline(age)[2]"]),
        ("`far-off` + prs.score", ["(intercept)", "far-off", "prs.score"]),
        (
            "age*sex*bmi",
            [
                "(intercept)",
                "age",
                "sex[male]",
                "bmi",
                "age:sex[male]",
                "age:bmi",
                "sex[male]:bmi",
                "age:sex[male]:bmi",
            ],
        ),
    ],
)
def test_a_formula_stands_for_these_columns(text: str, names: list[str] | None) -> None:
    if names is None:
        with pytest.raises(UsageError):
            parse(text)
    else:
        assert list(parse(text).over(RANGES).names) == names


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "its end where a column is expected, character 1"),
        ("age +", "its end where a column is expected, character 6"),
        ("age ++ bmi", "'+' where a column is expected, character 6"),
        ("age bmi", "'bmi' where + or an end is expected, character 5"),
        ("age - bmi", "'bmi' where 1 is expected, character 7"),
        ("age^9", "'9' where a whole power from 2 to 5 is expected, character 5"),
        ("age^-1", "'-' where a whole power"),
        ("(age)", "'(' where a column is expected, character 1"),
        ("exp(age)", "'exp' where log(...), spline(...) or C(...) is expected, character 1"),
        ("__import__('os')", "the character \"'\", character 12"),
        ("log(age", "its end where ) is expected, character 8"),
        ("`age", "a ` that is not closed, character 1"),
        ("age; bmi", "the character ';', character 4"),
        ("age*age", "age:age, character 1"),
        ("age*sex*bmi*smoking", "age:sex:bmi:smoking, character 1"),
        ("spline(age, 50, 40, 60)", "3 knots"),
        ("spline(age, 40, 50)", "2 knots"),
        ("spline(age, 1e999, 4, 5)", "'1e999' where a number is expected"),
        ("spline(age, 1.2.3, 4, 5)", "'1.2.3' where a number is expected"),
        ("C(smoking, to = \"never\")", "'to' where ref is expected, character 12"),
        ("a" * (MOST_CHARACTERS + 1), "2,001"),
        # Of these ranges:
        ("log(change)", "log(change), change in [-3, 2]"),
        ("log(sex)", "log of sex"),
        ("C(age)", "factor of age"),
        ('C(smoking, ref = "always")', "'always' of smoking"),
        ("spline(age, 10, 50, 60)", "knots 10, 50, 60"),
        ("sex:age", "age:sex without age"),
        ("sex*smoking - 1", "sex:smoking without an intercept"),
        ("region + hospital", "more, at hospital"),
        ("region*hospital", "more"),
    ],
)  # fmt: skip
def test_what_is_no_formula_is_refused_with_its_place(text: str, found: str) -> None:
    with pytest.raises(UsageError) as error:
        parse(text).over(RANGES)
    assert found in error.value.found
    assert error.value.remedy


def test_every_term_reaches_its_bounds_and_exceeds_none() -> None:
    text = (
        "age + age^3 + change^2 + change^3 + log(bmi) + spline(age, 30, 45, 60, 90) + change*bmi + smoking*change + sex"
    )
    rng, n = np.random.default_rng(1), 200_000
    columns = {}
    for name, span in RANGES.items():
        values = rng.uniform(span.minimum, span.maximum, n)
        values[: n // 2] = rng.choice([span.minimum, span.maximum, np.clip(0, span.minimum, span.maximum)], n // 2)
        columns[name] = np.rint(values) if span.categories else values
    for term in parse(text).over(RANGES).terms:
        values, (low, high) = term.values(columns), term.bounds
        assert low - 1e-9 <= values.min() <= low + 1e-4 * (high - low), term.name
        assert high - 1e-4 * (high - low) <= values.max() <= high * (1 + 1e-12) + 1e-12, term.name


def test_a_question_names_the_columns_of_its_formula() -> None:
    question = Regression("prs.score", 'age*sex + C(smoking, ref = "never") + spline(bmi, 20, 25, 30)')
    assert names_of(question, "column") == ("prs.score", "age", "sex", "smoking", "bmi")
    assert set(question.needs().columns) == set(names_of(question, "column"))
