"""Sites that drop out of a secure sum: 4, 15 and 27 sites, at every step, with the request lost or with the reply lost.

Either the total over all that remain is exact, or the question ends and no seed of it was revealed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from fl_server.conduct import Result
from strategies.errors import RefusedError, TooFewSitesError
from strategies.protections import secure_sum
from strategies.wire import Agree, Ask, Header, Recover, Share, Unmask, Unmasked, open_envelope
from tests.tiny import COUNTS, NAMES, GateLink, Tiny, genotypes, study

Make = Callable[..., Tiny]
MANY = tuple(f"{a}{b}" for a in "AB" for b in "ABCDEFGHIJKLMNOPQRSTUVWXYZ")[:27]
STEPS: Mapping[str, type[Header]] = {"share": Share, "agree": Agree, "ask": Ask, "unmask": Unmask}


def header_of(tiny: Tiny, envelope: bytes) -> Header:
    return open_envelope(envelope, {"demo": tiny.workspace.identity.public}).header


def dropping(tiny: Tiny, drops: Mapping[type[Header], Sequence[str]], delivered: bool) -> GateLink:
    """A link over which sites fall silent for good when a message of that kind is for them: the message is lost, or it
    is delivered and what they reply is lost."""
    link = tiny.link()

    def leaves(name: str, envelopes: list[bytes]) -> bool:
        return name in drops.get(type(header_of(tiny, envelopes[0])), ())

    def on_request(name: str, envelopes: list[bytes]) -> list[bytes] | None:
        if leaves(name, envelopes) and not delivered:
            link.down.add(name)
            return None
        return envelopes

    def on_reply(name: str, envelopes: list[bytes], replies: list[bytes]) -> list[bytes] | None:
        if leaves(name, envelopes):
            link.down.add(name)
            return None
        return replies

    link.on_request, link.on_reply = on_request, on_reply
    return link


def check_exact(result: Result, sites: Sequence[str]) -> None:
    assert result.statement.sites == tuple(sites)
    codes = np.concatenate([genotypes(site) for site in sites], axis=1)
    table = result.answer.tables["frequencies"]
    for k, column in enumerate(("hom_ref", "het", "hom_alt", "missing")):
        assert np.array_equal(np.asarray(table[column]), (codes == k).sum(axis=1)), column


def ask(tiny: Tiny, folder: Path, link: GateLink) -> Result:
    (result,) = tiny.conductor(study(COUNTS), folder, link).run()
    return result


@pytest.mark.parametrize("delivered", [False, True], ids=["request lost", "reply lost"])
@pytest.mark.parametrize("step", STEPS)
def test_one_of_four(tiny: Tiny, quick_path: Path, step: str, delivered: bool) -> None:
    """Before the sum is opened it is another attempt without the site; afterwards the others' shares open its masks.
    Nobody agreed that its own total may follow: an attempt that three of four have withdrawn is dead."""
    result = ask(tiny, quick_path / "run", dropping(tiny, {STEPS[step]: ["CY"]}, delivered))
    if step == "unmask":
        check_exact(result, NAMES)
        assert result.statement.recovered == {"CY": "did not answer"}
        assert result.statement.absent == {}
    else:
        check_exact(result, ("AT", "BE", "DK"))
        assert result.statement.absent == {"CY": "did not answer"}
        assert result.statement.recovered == {}


@pytest.fixture
def fifteen(make_tiny: Make) -> Tiny:
    return make_tiny(names=MANY[:15])


@pytest.mark.parametrize(
    "step", ["agree", "unmask", *(pytest.param(s, marks=pytest.mark.proof) for s in ("share", "ask"))]
)
def test_several_of_fifteen(fifteen: Tiny, quick_path: Path, step: str) -> None:
    """Seven of fifteen: as many as may be lost, since eight shares open a root and eight withdrawals end an attempt."""
    gone = MANY[2:9]
    result = ask(fifteen, quick_path / "run", dropping(fifteen, {STEPS[step]: gone}, delivered=True))
    if step == "unmask":
        check_exact(result, MANY[:15])
        assert result.statement.recovered == dict.fromkeys(gone, "did not answer")
    else:
        check_exact(result, [site for site in MANY[:15] if site not in gone])
        assert result.statement.absent == dict.fromkeys(gone, "did not answer")


def test_fewer_than_half_do_not_go_on_unless_all_agreed(make_tiny: Make, quick_path: Path) -> None:
    """Eight of fifteen are lost when they were asked: the seven that remain cannot know that the others will not open
    the first attempt. With everybody's `own_total` three may go on; with two left nobody may."""
    tiny = make_tiny(names=MANY[:15])
    with pytest.raises(RefusedError) as error:
        ask(tiny, quick_path / "seven", dropping(tiny, {Ask: MANY[7:15]}, delivered=True))
    assert error.value.code == "ROSTER_ISOLATES"
    agreed = make_tiny(names=MANY[:15], own_total=MANY[:15])
    check_exact(ask(agreed, quick_path / "three", dropping(agreed, {Ask: MANY[3:15]}, delivered=True)), MANY[:3])
    alone = make_tiny(names=MANY[:15], own_total=MANY[:15])
    link = dropping(alone, {Ask: MANY[2:15]}, delivered=True)
    with pytest.raises(TooFewSitesError):
        ask(alone, quick_path / "two", link)
    check_nothing_was_revealed(alone, link)


def check_nothing_was_revealed(tiny: Tiny, link: GateLink) -> None:
    for site, envelope, reply in link.traffic:
        assert not isinstance(header_of(tiny, envelope), Unmask | Recover)
        assert not isinstance(tiny.read(site, reply).header, Unmasked)


@pytest.mark.proof
def test_twenty_seven_sites_of_which_some_drop_at_every_step(make_tiny: Make, quick_path: Path) -> None:
    """27 at first; three are lost when keys are shared, two when they sign, one when it is asked: each time another
    attempt. Four fall silent when the sum is opened and one more before it returns its shares: the 21 are in it."""
    tiny = make_tiny(names=MANY)
    drops = {Share: MANY[:3], Agree: MANY[5:7], Ask: MANY[9:10], Unmask: MANY[11:15], Recover: MANY[20:21]}
    result = ask(tiny, quick_path / "run", dropping(tiny, drops, delivered=True))
    lost = {*drops[Share], *drops[Agree], *drops[Ask]}
    check_exact(result, [site for site in MANY if site not in lost])
    assert set(result.statement.absent) == lost
    assert set(result.statement.recovered) == set(drops[Unmask])
    assert secure_sum.threshold(21) == 11


def test_twenty_seven_sites_of_which_some_fall_silent_at_the_end(make_tiny: Make, quick_path: Path) -> None:
    """Three when the sum is opened, one more before it returns its shares: all 27 are in the total."""
    tiny = make_tiny(names=MANY)
    result = ask(tiny, quick_path / "run", dropping(tiny, {Unmask: MANY[11:14], Recover: MANY[20:21]}, delivered=True))
    check_exact(result, MANY)
    assert set(result.statement.recovered) == set(MANY[11:14])


@pytest.mark.parametrize("sites", [3, 4, 5])
def test_when_too_few_return_shares_the_attempt_is_given_up(make_tiny: Make, quick_path: Path, sites: int) -> None:
    """Of n sites n - t + 1 open nothing. Fewer than three are left, or three who may go on alone only if all agreed."""
    names = MANY[:sites]
    gone = names[secure_sum.threshold(sites) - 1 :]
    tiny = make_tiny(names=names)
    link = dropping(tiny, {Unmask: gone}, delivered=False)
    with pytest.raises(TooFewSitesError):
        ask(tiny, quick_path / "run", link)
    opened = {s for s, e, r in link.traffic if isinstance(tiny.read(s, r).header, Unmasked)}
    assert opened == set(names) - set(gone)
    assert len(opened) == secure_sum.threshold(sites) - 1


def test_a_site_that_shares_another_root_than_it_states_is_named(tiny: Tiny, quick_path: Path) -> None:
    """A false giver is noticed when its shares are needed: the root that they give is not the one it committed to."""
    split = secure_sum.split

    def false(root: bytes, sites: int) -> tuple[bytes, ...]:
        return split(bytes(32), sites)

    gate = tiny.gates["CY"]
    answer = gate.answer

    def answer_falsely(envelope: bytes) -> bytes:
        secure_sum.split = false if isinstance(header_of(tiny, envelope), Share) else split
        try:
            return answer(envelope)
        finally:
            secure_sum.split = split

    gate.answer = answer_falsely  # type: ignore[method-assign]
    with pytest.raises(RefusedError, match="single out") as error:
        ask(tiny, quick_path / "run", dropping(tiny, {Unmask: ["CY"]}, delivered=False))
    assert "CY shared another root than it stated" in error.value.found
