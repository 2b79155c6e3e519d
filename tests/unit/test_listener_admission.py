"""Which user identities prove somebody: a name and a passcode, over TLS, where somebody can tell."""

from __future__ import annotations

import pytest

from dicom_node.listener.admission import (
    EVERY_OPERATION,
    USER_ABSENT,
    USER_NOT_RECOGNISED,
    Admission,
    Admitted,
    Knock,
    UserIdentity,
)

SECURE = frozenset({"mammo1.hospital.test"})
NAME_AND_PASSCODE = 2


def knock(kind: int | None = NAME_AND_PASSCODE, *, names: frozenset[str] | None = SECURE) -> Knock:
    user = None if kind is None else UserIdentity(kind, b"mammo", b"passcode")
    return Knock("MAMMO1", "NODE", "10.1.2.3", names, user)


def test_a_user_whose_passcode_is_right_has_proved_who_it_is() -> None:
    asked: list[tuple[bytes, bytes]] = []
    admission = Admission("NODE", needs_user=True, verify_user=lambda *user: asked.append(user) or True)
    assert admission.decide(knock()) == Admitted(EVERY_OPERATION, has_proved_user=True)
    assert asked == [(b"mammo", b"passcode")]


@pytest.mark.parametrize(
    ("knocking", "refusal"),
    [
        (knock(None), USER_ABSENT),
        (knock(names=None), USER_NOT_RECOGNISED),
        # PS3.7 D.3.3.7: a name alone, a Kerberos ticket, a SAML assertion, a JSON web token.
        *((knock(kind), USER_NOT_RECOGNISED) for kind in (1, 3, 4, 5)),
    ],
)
def test_what_proves_nobody_is_refused_before_any_passcode_is_looked_at(
    knocking: Knock, refusal: object
) -> None:
    def verify(name: bytes, passcode: bytes) -> bool:
        pytest.fail("it was looked at")

    assert Admission("NODE", needs_user=True, verify_user=verify).decide(knocking) is refusal


def test_where_nobody_can_tell_a_user_none_is_recognised() -> None:
    assert Admission("NODE", needs_user=True).decide(knock()) is USER_NOT_RECOGNISED
