from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spool.errors import BadRequest, BadType, Forbidden, TooLarge
from spool.model import Intent, Principal
from spool.policy import SCOPES, Policy, require, require_edit
from tests.store.index_suite import a_file

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
TICK = timedelta(microseconds=1)

moments = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001  # made aware
spans = st.timedeltas(TICK, 1000 * DAY)


def an_intent(**claims: object) -> Intent:
    return Intent("song.mp3", **claims)


def test_policy_without_globs_takes_every_type() -> None:
    Policy(100).recheck("application/x-dosexec")


@pytest.mark.parametrize("media_type", ["audio/mpeg", "audio/x-wav", "image/png"])
def test_allowed_type_is_taken(media_type: str) -> None:
    Policy(100, allow_types=("audio/*", "image/png")).recheck(media_type)


@pytest.mark.parametrize("media_type", ["video/mp4", "image/jpeg", "image/png2", "xaudio/mpeg", "AUDIO/mpeg"])
def test_type_that_no_glob_allows_is_refused(media_type: str) -> None:
    with pytest.raises(BadType) as refusal:
        Policy(100, allow_types=("audio/*", "image/png")).recheck(media_type)
    assert refusal.value.members == {"media_type": media_type}


def test_denied_type_is_refused_where_every_other_is_taken() -> None:
    policy = Policy(100, deny_types=("text/*",))
    policy.recheck("image/png")
    with pytest.raises(BadType):
        policy.recheck("text/html")


def test_deny_wins_over_allow() -> None:
    policy = Policy(100, allow_types=("image/*",), deny_types=("image/svg+xml",))
    policy.recheck("image/png")
    with pytest.raises(BadType):
        policy.recheck("image/svg+xml")


@pytest.mark.parametrize("size", [None, 0, 100])
def test_size_up_to_the_limit_is_admitted(size: int | None) -> None:
    assert Policy(100).admit(an_intent(size=size), NOON).max_size == 100


def test_declared_size_over_the_limit_is_too_large() -> None:
    with pytest.raises(TooLarge) as refusal:
        Policy(100).admit(an_intent(size=101), NOON)
    assert refusal.value.members == {"limit": 100}


@pytest.mark.parametrize("expires_at", [NOON, NOON - TICK, NOON - DAY])
def test_expiry_that_is_not_in_the_future_is_refused(expires_at: datetime) -> None:
    with pytest.raises(BadRequest):
        Policy(100).admit(an_intent(expires_at=expires_at), NOON)


def test_expiry_is_granted_as_wanted_where_files_may_stay_for_ever() -> None:
    assert Policy(100).admit(an_intent(expires_at=NOON + 9 * DAY), NOON).expires_at == NOON + 9 * DAY


def test_file_stays_for_ever_where_nothing_says_otherwise() -> None:
    assert Policy(100).admit(an_intent(), NOON).expires_at is None


def test_file_expires_after_what_policy_says() -> None:
    assert Policy(100, expire_after=7 * DAY).admit(an_intent(), NOON).expires_at == NOON + 7 * DAY


def test_expiry_beyond_what_policy_says_is_cut() -> None:
    assert Policy(100, expire_after=7 * DAY).expiry(NOON + 8 * DAY, NOON) == NOON + 7 * DAY


@given(wanted=st.none() | moments, since=moments, expire_after=spans)
def test_expiry_is_never_later_than_wanted_or_allowed(
    wanted: datetime | None, since: datetime, expire_after: timedelta
) -> None:
    expires_at = Policy(100, expire_after=expire_after).expiry(wanted, since)
    assert expires_at is not None
    assert expires_at in (wanted, since + expire_after)
    assert expires_at <= since + expire_after
    assert wanted is None or expires_at <= wanted


@pytest.mark.parametrize("scope", SCOPES)
def test_scope_is_enough_for_itself(scope: str) -> None:
    require(Principal("ada", frozenset({scope})), scope)


@pytest.mark.parametrize("scope", SCOPES)
def test_admin_is_enough_for_every_scope(scope: str) -> None:
    require(Principal("root", frozenset({"admin"})), scope)


@pytest.mark.parametrize("scope", SCOPES)
def test_all_other_scopes_are_not_enough(scope: str) -> None:
    others = frozenset(SCOPES) - {scope, "admin"}
    with pytest.raises(Forbidden) as refusal:
        require(Principal("ada", others), scope)
    assert refusal.value.members == {"scope": scope}


def test_uploader_may_edit() -> None:
    require_edit(Principal("ada", frozenset({"upload"})), a_file("song", owner="ada"))


def test_admin_may_edit_what_others_uploaded() -> None:
    require_edit(Principal("root", frozenset({"admin"})), a_file("song", owner="ada"))


def test_others_may_not_edit() -> None:
    with pytest.raises(Forbidden):
        require_edit(Principal("bob", frozenset({"upload", "read", "delete"})), a_file("song", owner="ada"))
