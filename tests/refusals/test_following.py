"""Questions that read an earlier answer or are made of the sites' own: what a study may not say, and a coordinator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from strategies.analyses import linkage
from strategies.analyses.linkage import LinkageDisequilibrium
from strategies.analyses.meta_analysis import MetaAnalysis
from strategies.analysis import Frame
from strategies.errors import RefusedError, UsageError
from strategies.question import Question
from strategies.reasons import Reason
from strategies.study import Study
from strategies.variants import Panel
from strategies.wire import Refused
from tests.tiny import COUNTS, FREQUENCIES, LINEAR, NAMES, PANEL, VARIANTS, Tiny, study

BAND = Question("band", LinkageDisequilibrium("panel", variants_in_band=3))
CLUMPS = Question("clumps", LinkageDisequilibrium("panel", clump="linear"))
META = Question("meta", MetaAnalysis("panel", ("trait",), ("sex",)), by_site=True)
SITE = NAMES[0]


def read(asked: Study) -> Study:
    return Study.from_document(asked.document, {name: panel.encode() for name, panel in asked.panels.items()})


def test_a_study_that_clumps_an_earlier_association_is_read() -> None:
    assert read(study(LINEAR, CLUMPS)).questions == (LINEAR, CLUMPS)


@pytest.mark.parametrize(
    ("questions", "there"),
    [
        ((CLUMPS,), "none"),
        ((CLUMPS, LINEAR), "none"),
        ((COUNTS, CLUMPS), "counts"),
        ((FREQUENCIES, replace(CLUMPS, analysis=replace(CLUMPS.analysis, clump="frequencies"))), "none"),
        ((LINEAR, replace(CLUMPS, analysis=replace(CLUMPS.analysis, panel="other"))), "none"),
        ((LINEAR, replace(CLUMPS, analysis=replace(CLUMPS.analysis, clump=""))), "linear"),
    ],
    ids=["of nothing", "of a later one", "of another", "of a private one", "over another panel", "of no name"],
)
def test_what_is_clumped_is_an_earlier_exact_question_about_the_panel(
    questions: tuple[Question, ...], there: str
) -> None:
    panels = {"panel": PANEL, "other": Panel(PANEL.assembly, PANEL.variants[:9])}
    with pytest.raises(UsageError, match="reads the answer of an earlier exact question about the same panel") as error:
        read(study(*questions, panels=panels))
    assert error.value.found.endswith(f"there are: {there}")


@pytest.mark.parametrize("name", ["counts", "linear.height"])
def test_what_is_clumped_has_p_values(tiny: Tiny, quick_path: Path, name: str) -> None:
    asked = study(COUNTS, LINEAR, replace(CLUMPS, analysis=replace(CLUMPS.analysis, clump=name)))
    with pytest.raises(UsageError, match="one table of p values") as error:
        tiny.conductor(asked, quick_path / "run").run()
    assert error.value.found == f"clump = {name!r}: none"


def test_a_meta_analysis_is_asked_for_each_site() -> None:
    assert read(study(META)).questions == (META,)
    with pytest.raises(UsageError, match="made of the sites' own answers"):
        read(study(replace(META, by_site=False)))


def test_a_node_gives_its_own_part_of_a_meta_analysis_by_policy_alone(
    make_tiny: Callable[..., Tiny], quick_path: Path
) -> None:
    with pytest.raises(RefusedError) as error:
        make_tiny().conductor(study(META), quick_path / "run").run()
    assert error.value.code == Reason.BY_SITE_NOT_ALLOWED


@pytest.mark.parametrize(
    "change",
    [
        {"window_kb": 0.0},
        {"variants_in_band": 0},
        {"index_p": 0.02},
        {"member_p": 1.5},
        {"r2": -0.1},
        {"role": np.array([32])},
        {"role": np.array([-1])},
        {"role": np.zeros((2, 2), dtype=np.int64)},
        {"role": np.zeros(2)},
    ],
)
def test_parameters_out_of_their_range_are_no_question(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must be from|five bits"):
        LinkageDisequilibrium("panel", **change)


def test_pairs_are_counted_before_they_are_built(monkeypatch: pytest.MonkeyPatch) -> None:
    role = np.full(VARIANTS, linkage.COMMON | linkage.HIT | linkage.INDEX)
    asked = replace(LinkageDisequilibrium("panel", variants_in_band=2), taken=1, people=9, role=role)
    pairs = 2 * VARIANTS - 3
    monkeypatch.setattr(linkage, "MOST_PAIRS", pairs)
    assert asked.leaves(Frame(PANEL))["products"].shape == (pairs,)
    monkeypatch.setattr(linkage, "MOST_PAIRS", pairs - 1)
    with pytest.raises(UsageError, match=f"about {pairs - 1} pairs of variants at most") as error:
        asked.leaves(Frame(PANEL))
    assert error.value.found == f"{pairs}"


def stated(tiny: Tiny, role: np.ndarray, session: str, **change: Any) -> Reason | None:
    """What a node says to a second round about variants with these roles."""
    asked = study(BAND)
    pen = tiny.pen(asked, session).open()
    analysis = replace(LinkageDisequilibrium("panel", variants_in_band=3, **change), taken=1, people=120)
    object.__setattr__(analysis, "role", role)  # what a coordinator may send, its own page would not hold
    envelope = pen.ask("band", analysis=analysis, earlier=[{}])
    header = tiny.read(SITE, tiny.gates[SITE].answer(envelope)).header
    return header.reason if isinstance(header, Refused) else None


def test_a_second_round_has_a_role_for_each_variant(tiny: Tiny) -> None:
    everybody = np.full(VARIANTS, linkage.COMMON | linkage.HIT | linkage.INDEX)
    assert stated(tiny, everybody[:-1], "short") is Reason.STUDY_INVALID
    assert stated(tiny, everybody + 32, "many") is Reason.NOT_DERIVED
    assert stated(tiny, everybody * 1.0, "fractions") is Reason.NOT_DERIVED
    assert stated(tiny, everybody, "wider", window_kb=500.0) is Reason.NOT_DERIVED
    assert stated(tiny, everybody, "asked") is None
