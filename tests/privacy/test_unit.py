"""A family is hidden at the square of its size in zCDP, and promises about different units are kept in one book."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from dp_accounting import GaussianDpEvent
from dp_accounting.pld.privacy_loss_distribution import from_gaussian_mechanism
from dp_accounting.rdp import RdpAccountant

from fl_server.results import statement
from strategies.codec import canonical, parse
from strategies.errors import RefusedError, UsageError
from strategies.privacy import MOST_RELATIVES, PERSON, Budget, Loss, Unit
from strategies.study import Study
from tests.tiny import COUNTS, FREQUENCIES, Tiny, study

SITE = "AT"


def for_family(size: int, epsilon: float = 1.0) -> object:
    return replace(FREQUENCIES, budget=Budget(epsilon, 1e-5, Unit(size)))


@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize("epsilon", [0.1, 1.0, 8.0])
def test_a_family_s_distance_is_hidden_within_its_budget(size: int, epsilon: float) -> None:
    """Noise that the budget gives one person, seen from a data set that differs by k people: by dp_accounting."""
    budget = Budget(epsilon, 1e-5, Unit(size))
    scale = 1 / math.sqrt(2 * budget.loss.rho)  # of the noise where one person changes a sum by 1, and k change it by k
    accountant = RdpAccountant()
    accountant.compose(GaussianDpEvent(scale / size))
    assert accountant.get_epsilon(1e-5) <= epsilon * (1 + 1e-3)
    tight = from_gaussian_mechanism(scale, sensitivity=size, value_discretization_interval=1e-3)
    assert 0.5 * epsilon < tight.get_epsilon_for_delta(1e-5) <= epsilon
    larger = from_gaussian_mechanism(scale, sensitivity=size + 1, value_discretization_interval=1e-3)
    assert larger.get_epsilon_for_delta(1e-5) > epsilon  # nothing is given away: one more relative is not covered


@pytest.mark.parametrize("size", [1, 2, 5])
def test_a_family_pays_with_the_square_of_its_size(size: int) -> None:
    alone, together = Budget(2.0, 1e-6), Budget(2.0, 1e-6, Unit(size))
    assert together.loss.rho * size**2 == pytest.approx(alone.loss.rho, rel=1e-12)
    assert together.loss.epsilon(1e-6, Unit(size)) == pytest.approx(2.0, rel=1e-6)
    assert str(together) == f"epsilon 2, delta 1e-06, per {'person' if size == 1 else f'family of {size}'}"


def test_a_family_at_several_sites_loses_no_more_than_at_one() -> None:
    rho = 0.3
    for parts in ([3], [2, 1], [1, 1, 1]):
        assert sum(k**2 * rho for k in parts) <= 3**2 * rho


@pytest.mark.parametrize("size", [0, -1, MOST_RELATIVES + 1])
def test_a_unit_of_nobody_is_none(size: int) -> None:
    with pytest.raises(ValueError, match="family must be from 1"):
        Unit(size)


def test_a_study_says_its_unit_and_an_exact_question_has_none() -> None:
    asked = study(for_family(3), COUNTS)
    panels = {name: panel.encode() for name, panel in asked.panels.items()}
    assert Study.from_document(asked.document, panels) == asked
    assert parse(asked.document)["question"][0]["family"] == 3
    plain = parse(asked.document)
    for number, family, said in (
        (1, 3, "spends no epsilon"),
        (0, 0, "family must be from 1"),
        (0, 2.5, "whole number"),
    ):
        document = parse(asked.document)
        document["question"][number]["family"] = family
        with pytest.raises(UsageError, match=said):
            Study.from_document(canonical(document), panels)
    del plain["question"][0]["family"]
    assert Study.from_document(canonical(plain), panels).questions[0].budget.unit == PERSON


def test_a_family_s_question_charges_persons_and_its_statement_says_so(
    make_tiny: Callable[..., Tiny], quick_path: Path
) -> None:
    tiny = make_tiny()
    (result,) = tiny.conductor(study(for_family(3)), quick_path / "run").run()
    assert statement.document(result, ())["unit"] == "family of 3"
    spent = tiny.gates[SITE].ledger.spent()
    assert spent.rho == pytest.approx(Budget(1.0, 1e-5).loss.rho / 9)
    plain = study(FREQUENCIES)
    (other,) = tiny.conductor(plain, quick_path / "plain").run()
    assert result.statement.noise["people"] == pytest.approx(3 * other.statement.noise["people"])
    assert tiny.gates[SITE].ledger.spent().rho == pytest.approx(Budget(1.0, 1e-5).loss.rho * (1 + 1 / 9))


def test_a_node_that_promises_per_family_answers_persons_at_nine_times_the_price(
    make_tiny: Callable[..., Tiny], quick_path: Path
) -> None:
    """Epsilon 3 per family of 3 is less than epsilon 3 per person: what one question costs each person decides."""
    tiny = make_tiny(epsilon=3.0, family=3)
    policy = tiny.gates[SITE].policy
    assert str(policy.budget) == "epsilon 3, delta 1e-05, per family of 3"
    left = policy.budget.loss.rho
    assert left == pytest.approx(Budget(3.0, 1e-5).loss.rho / 9)
    with pytest.raises(RefusedError) as refused:  # a question whose unit is less strict than the node's
        tiny.conductor(study(replace(FREQUENCIES, budget=Budget(3.0, 1e-5))), quick_path / "dear").run()
    assert refused.value.code == "BUDGET_EXHAUSTED"
    affordable = Loss(left * 0.9).epsilon(1e-5)
    tiny.conductor(study(replace(FREQUENCIES, budget=Budget(affordable, 1e-5))), quick_path / "small").run()
    spent = tiny.gates[SITE].ledger.spent()
    assert spent.epsilon(1e-5, Unit(3)) <= 3.0
    with pytest.raises(RefusedError):  # and the same question per family of 3 no longer fits either
        tiny.conductor(study(for_family(3, 1.5)), quick_path / "family").run()


def test_an_opened_session_states_what_the_policy_promises_each_person(make_tiny: Callable[..., Tiny]) -> None:
    tiny = make_tiny(epsilon=3.0, family=3)
    reply = tiny.read(SITE, tiny.gates[SITE].answer(tiny.pen(study(FREQUENCIES)).opening()))
    assert reply.header.epsilon == pytest.approx(Loss(Budget(3.0, 1e-5).loss.rho / 9).epsilon(1e-5))
