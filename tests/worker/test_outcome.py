"""What an outcome means for a message: the decision alone, no database."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from models.base import uuid7
from models.mailer import OnUncertain
from models.message import UNTIL_SOMEBODY_ACTS, State
from providers.base import Lookup, LookupAnswer, Outcome, Result
from worker.lease import Held
from worker.outcome import PATIENCE, Policy, Verdict, ended, judge, judge_lookup
from worker.outcome_rows import _row
from worker.retry import THROTTLED_SECONDS, Backoff, pause

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
POLICY = Policy(now=NOW, backoff=Backoff((10, 100), jitter=0), can_ask=True, settle_seconds=60, on_uncertain="hold")


def held(
    *recipients: str, attempts: tuple[dict[str, Any], ...] = (), outcomes: Mapping[str, Any] | None = None
) -> Held:
    return Held(
        id=uuid7(),
        submission_id=uuid7(),
        was=State.QUEUED,
        tries=len(attempts),
        crashes=0,
        recipients=recipients or ("ann@example.com",),
        recipient_name=None,
        variables=None,
        rfc_message_id="<postroad1@demo.test>",
        provider_message_id=None,
        attempts=attempts,
        outcomes=dict(outcomes or {}),
        created_at=NOW,
    )


def outcome(result: Result, **fields: Any) -> Outcome:
    return Outcome(result=result, detail=f"said {result.value}", **fields)


def seconds_until(verdict: Verdict) -> float:
    assert verdict.due_at is not None
    return (verdict.due_at - NOW).total_seconds()


def test_an_accepted_mail_is_sent_and_never_due_again() -> None:
    verdict = judge(held(), outcome(Result.ACCEPTED, provider_message_id="q1"), POLICY)
    assert (verdict.state, verdict.due_at, verdict.provider_message_id) == (State.SENT, None, "q1")
    assert verdict.reason is None


def test_a_mail_refused_for_good_fails_at_once_with_the_providers_words() -> None:
    verdict = judge(held(), outcome(Result.PERMANENT, code="550 5.1.1"), POLICY)
    assert (verdict.state, verdict.reason) == (State.FAILED, "said permanent")
    assert verdict.attempt == {
        "at": NOW.isoformat(),
        "outcome": "permanent",
        "detail": "said permanent",
        "code": "550 5.1.1",
    }


@pytest.mark.parametrize(
    ("earlier", "state", "wait"),
    [
        (0, State.QUEUED, 10),  # first failure: first wait
        (1, State.QUEUED, 100),  # second failure: second wait
        (2, State.FAILED, None),  # third failure: waits are used up
    ],
)
def test_a_transient_failure_waits_longer_each_time_and_then_gives_up(
    earlier: int, state: State, wait: float | None
) -> None:
    failures = tuple({"outcome": "transient", "at": "", "detail": ""} for _ in range(earlier))
    verdict = judge(held(attempts=failures), outcome(Result.TRANSIENT), POLICY)
    assert verdict.state is state
    assert (verdict.due_at is None) if wait is None else seconds_until(verdict) == wait


def test_being_throttled_never_uses_up_the_attempts() -> None:
    throttled = tuple({"outcome": "throttled", "at": "", "detail": ""} for _ in range(50))
    verdict = judge(held(attempts=throttled), outcome(Result.THROTTLED), POLICY)
    assert verdict.state is State.QUEUED
    assert seconds_until(verdict) == THROTTLED_SECONDS


@pytest.mark.parametrize("result", [Result.THROTTLED, Result.TRANSIENT])
@pytest.mark.parametrize(("hours", "state"), [(71, State.QUEUED), (73, State.FAILED)])
def test_a_mail_that_is_always_put_off_is_given_up_after_three_days(result: Result, hours: int, state: State) -> None:
    since = NOW - timedelta(hours=hours)
    earlier = ({"outcome": "throttled", "at": since.isoformat(), "detail": ""},)
    verdict = judge(held(attempts=earlier), outcome(result), POLICY)
    assert verdict.state is state
    if state is State.FAILED:
        assert verdict.due_at is None
        assert since.isoformat() in (verdict.reason or "")
        assert f"said {result.value}" in (verdict.reason or "")


def test_a_retry_by_hand_and_a_wait_for_credentials_do_not_count_as_being_put_off() -> None:
    long_ago = (NOW - timedelta(days=9)).isoformat()
    retried = ({"outcome": "throttled", "at": long_ago}, {"outcome": "retried", "at": long_ago})
    refused = ({"outcome": "credentials", "at": long_ago},)
    for earlier in (retried, refused):
        assert judge(held(attempts=earlier), outcome(Result.THROTTLED), POLICY).state is State.QUEUED


def test_a_mail_that_another_one_kept_from_being_sent_goes_at_once_and_uses_up_no_attempt() -> None:
    untried = outcome(Result.TRANSIENT, untried=True)
    first = judge(held(), untried, POLICY)
    assert (first.state, seconds_until(first)) == (State.QUEUED, 0)
    assert first.attempt is not None
    later = judge(held(attempts=(dict(first.attempt),) * 5), outcome(Result.TRANSIENT), POLICY)
    assert (later.state, seconds_until(later)) == (State.QUEUED, 10)


def test_retry_after_of_the_provider_wins_over_the_backoff() -> None:
    assert seconds_until(judge(held(), outcome(Result.THROTTLED, retry_after=7.0), POLICY)) == 7
    assert seconds_until(judge(held(), outcome(Result.TRANSIENT, retry_after=500.0), POLICY)) == 500


def test_an_absurd_retry_after_is_cut_to_a_day() -> None:
    assert pause(10.0**9) == 24 * 3600


def test_refused_credentials_park_the_mail_and_do_not_fail_it() -> None:
    verdict = judge(held(), outcome(Result.CREDENTIALS), POLICY)
    assert (verdict.state, verdict.due_at) == (State.QUEUED, NOW)


def test_an_answer_that_never_came_makes_the_mail_uncertain_not_failed() -> None:
    verdict = judge(held(), outcome(Result.UNCERTAIN), POLICY)
    assert verdict.state is State.UNCERTAIN
    assert seconds_until(verdict) == POLICY.settle_seconds


def test_a_shared_mail_goes_on_only_for_the_recipients_not_yet_served() -> None:
    later = outcome(Result.TRANSIENT)
    mail = held("ann@example.com", "bob@example.com", "cat@example.com")
    refused = {"bob@example.com": later, "cat@example.com": outcome(Result.PERMANENT)}
    verdict = judge(mail, outcome(Result.ACCEPTED, recipients=refused), POLICY)
    assert verdict.state is State.QUEUED
    assert {address: one["outcome"] for address, one in (verdict.outcomes or {}).items()} == {
        "ann@example.com": "accepted",
        "cat@example.com": "permanent",
    }
    retried = mail._replace(outcomes=dict(verdict.outcomes or {}))
    assert retried.pending == ("bob@example.com",)
    assert judge(retried, outcome(Result.ACCEPTED), POLICY).state is State.SENT


def test_a_shared_mail_that_reached_one_recipient_is_sent_even_if_the_rest_is_refused() -> None:
    mail = held("ann@example.com", "bob@example.com")
    verdict = judge(mail, outcome(Result.ACCEPTED, recipients={"bob@example.com": outcome(Result.PERMANENT)}), POLICY)
    assert verdict.state is State.SENT


def test_a_shared_mail_that_gives_up_on_the_last_recipient_is_sent_if_another_got_it() -> None:
    failures = tuple({"outcome": "transient", "at": "", "detail": ""} for _ in range(2))
    mail = held(
        "ann@example.com", "bob@example.com", attempts=failures, outcomes={"ann@example.com": {"outcome": "accepted"}}
    )
    assert judge(mail, outcome(Result.TRANSIENT), POLICY).state is State.SENT


def test_only_a_provider_that_says_it_does_not_have_the_mail_gets_it_again() -> None:
    uncertain = held(attempts=({"outcome": "uncertain", "at": "", "detail": ""},))
    accepted = judge_lookup(uncertain, LookupAnswer(answer=Lookup.ACCEPTED, provider_message_id="p"), POLICY)
    assert (accepted.state, accepted.provider_message_id) == (State.SENT, "p")
    again = judge_lookup(uncertain, LookupAnswer(answer=Lookup.NOT_ACCEPTED), POLICY)
    assert (again.state, again.due_at) == (State.QUEUED, NOW)


def test_a_yes_about_a_shared_mail_that_reached_somebody_before_is_no_proof_for_the_rest() -> None:
    mail = held("ann@example.com", "bob@example.com", outcomes={"ann@example.com": {"outcome": "accepted"}})
    verdict = judge_lookup(mail, LookupAnswer(answer=Lookup.ACCEPTED), POLICY)
    assert verdict.state is State.UNCERTAIN


def test_a_provider_that_cannot_tell_yet_is_asked_again_and_then_the_mail_is_held() -> None:
    cannot_tell = LookupAnswer(answer=Lookup.CANNOT_TELL)
    asked: tuple[dict[str, Any], ...] = ()
    for _ in range(PATIENCE[Lookup.CANNOT_TELL]):
        verdict = judge_lookup(held(attempts=asked), cannot_tell, POLICY)
        assert (verdict.state, seconds_until(verdict)) == (State.UNCERTAIN, 60)
        asked = (*asked, dict(verdict.attempt or {}))
    final = judge_lookup(held(attempts=asked), cannot_tell, POLICY)
    assert (final.state, final.due_at) == (State.UNCERTAIN, UNTIL_SOMEBODY_ACTS)


def test_a_provider_that_is_away_is_asked_for_a_day_before_a_mail_is_held() -> None:
    unanswered = LookupAnswer(answer=Lookup.UNANSWERED)
    asked: tuple[dict[str, Any], ...] = ()
    waits = []
    while (verdict := judge_lookup(held(attempts=asked), unanswered, POLICY)).due_at != UNTIL_SOMEBODY_ACTS:
        assert verdict.state is State.UNCERTAIN
        waits.append(seconds_until(verdict))
        asked = (*asked, dict(verdict.attempt or {}))
    assert waits[:4] == [60, 120, 240, 480]
    assert max(waits) == 3600
    assert 20 * 3600 < sum(waits) < 28 * 3600


def test_what_was_asked_about_an_earlier_attempt_does_not_count() -> None:
    told = [{"outcome": "lookup_cannot_tell"}] * PATIENCE[Lookup.CANNOT_TELL]
    again = held(attempts=(*told, {"outcome": "lookup_not_accepted"}, {"outcome": "uncertain"}))
    assert judge_lookup(again, LookupAnswer(answer=Lookup.CANNOT_TELL), POLICY).due_at != UNTIL_SOMEBODY_ACTS


def test_a_mail_nobody_can_tell_about_is_sent_again_only_where_the_mailer_says_so() -> None:
    cannot_ask = replace(POLICY, can_ask=False)
    cannot_tell = LookupAnswer(answer=Lookup.CANNOT_TELL)
    assert judge_lookup(held(), cannot_tell, cannot_ask).due_at == UNTIL_SOMEBODY_ACTS
    resend = replace(cannot_ask, on_uncertain=OnUncertain.RESEND)
    assert judge_lookup(held(), cannot_tell, resend).state is State.QUEUED


def test_a_transition_that_the_table_does_not_allow_is_refused() -> None:
    nonsense = ended(held(), State.DELIVERED, "nonsense")
    with pytest.raises(ValueError, match="may not go from claimed to delivered"):
        _row(nonsense)


def test_jitter_stays_within_a_fifth_of_the_wait() -> None:
    delays = [Backoff((100,)).delay(1) for _ in range(200)]
    assert all(
        delay is not None and timedelta(seconds=80) <= timedelta(seconds=delay) <= timedelta(seconds=120)
        for delay in delays
    )
    assert len(set(delays)) > 1
