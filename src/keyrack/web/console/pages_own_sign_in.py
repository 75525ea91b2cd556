"""How the visitor signs in: password, codes, passkeys, sessions; must hold no rule of its own."""

from __future__ import annotations

from markupsafe import Markup
from starlette.responses import Response

from keyrack.core.people import passkeys, second_factors, users, web_sessions
from keyrack.errors import Kind, Refusal, invalid, missing
from keyrack.protocol.words import count
from keyrack.web.console import browsers
from keyrack.web.console.visits import Asked, Visit, change, page

HERE = "/settings/sign-in"


def show(visit: Visit) -> Response:
    """Everything by which the visitor signs in, and where they are signed in."""
    held = second_factors.own(visit.instance, visit.actor)
    browser = browsers.of(visit)
    return visit.show(
        "own_sign_in.html",
        ways=second_factors.ways(visit.instance, visit.actor),
        apps=[one for one in held if one.kind == second_factors.TOTP_KIND],
        passkeys=[one for one in held if one.kind == second_factors.PASSKEY],
        codes=sum(one.kind == second_factors.RECOVERY for one in held),
        options=passkeys.registration(visit.instance, visit.actor, browser) if browser else "",
        sessions=web_sessions.own(visit.instance, visit.actor),
    )


def set_password(visit: Visit) -> Response:
    """A new password for the old one."""
    set_own_password(visit)
    return visit.go(HERE, "Your password is changed. Your other sessions have ended.")


def set_own_password(visit: Visit) -> None:
    """Change the password as the form says. Raises Refusal INVALID with the field at fault."""
    assert visit.session is not None
    new = visit.form.text("password")
    if new != visit.form.text("repeated"):
        raise invalid("repeated", "The two are not the same.")
    original = visit.form.text("original")
    try:
        users.change_own_password(
            visit.instance, visit.actor, original=original, password=new, session_id=visit.session.id
        )
    except Refusal as refusal:
        if refusal.code != "password-wrong":
            raise
        raise Refusal(Kind.INVALID, refusal.code, "This is not your present password.", field="original") from None


def begin_app(visit: Visit) -> Response:
    """The key for an app, and the field for its first code."""
    begun = second_factors.begin_totp(visit.instance, visit.actor)
    return _app(visit, begun)


def _app(visit: Visit, begun: second_factors.CodesEnrolment) -> Response:
    """The key as text and as a square code that phones read."""
    import segno  # browser, where it is needed, as little else is

    square = segno.make(begun.address, micro=False, error="m").svg_inline(border=3, omitsize=True)
    return visit.show("own_app.html", begun=begun, square=Markup(square))  # noqa: S704 — made of squares alone


def app_again(visit: Visit) -> Response:
    """The same again after a wrong code."""
    begun = second_factors.enrolment(visit.instance, visit.actor, visit.form.text("carried"))
    return visit.go(HERE, "That took too long; begin again.") if begun is None else _app(visit, begun)


def finish_app(visit: Visit) -> Response:
    """Ask for codes from now on."""
    carried, code = visit.form.text("carried"), visit.form.text("code")
    codes = second_factors.finish_totp(visit.instance, visit.actor, carried, code)
    return _codes(visit, codes, "From now on signing in asks for a code of your app.")


def add_passkey(visit: Visit) -> Response:
    """Keep a passkey that the browser made."""
    browser = browsers.of(visit)
    if browser is None:
        raise invalid("answer", "Passkeys need the console to be opened by its name, over https.")
    name, answer = visit.form.text("name").strip(), visit.form.text("answer")
    codes = passkeys.register(visit.instance, visit.actor, browser, name=name, answer=answer)
    return _codes(visit, codes, f"The passkey {name} opens the console for you.")


def renewing_codes(visit: Visit) -> Asked:
    """What new recovery codes do."""
    held = sum(one.kind == second_factors.RECOVERY for one in second_factors.own(visit.instance, visit.actor))
    words = f"The {count(held, 'code')} that you have left no longer work then; the new ones are shown once."
    return Asked("New recovery codes?", [words], "New recovery codes", HERE)


def renew_codes(visit: Visit) -> Response:
    """Make new recovery codes; the old ones no longer work."""
    codes = second_factors.renew_recovery(visit.instance, visit.actor)
    return _codes(visit, codes, "The old recovery codes no longer work.")


def removing(visit: Visit) -> Asked:
    """What signing in without an app or a passkey means."""
    number = visit.form.number("id")
    held = [one for one in second_factors.own(visit.instance, visit.actor) if one.kind != second_factors.RECOVERY]
    one = next((one for one in held if one.id == number), None)
    if one is None:
        raise missing("second factor")
    left = [other.name for other in held if other.id != number]
    words = (
        f"{', '.join(left)} is still asked for beside your password."
        if left
        else "Your password alone signs in then: whoever learns it can sign in as you. Recovery codes go with it."
    )
    return Asked(f"Sign in without {one.name}?", [words, "It can be added again."], f"Remove {one.name}", HERE)


def remove(visit: Visit) -> Response:
    """Sign in without an app or a passkey."""
    second_factors.remove(visit.instance, visit.actor, visit.form.number("id"))
    return visit.go(HERE, "It no longer signs you in.")


def end_session(visit: Visit) -> Response:
    """End one session."""
    web_sessions.end(visit.instance, visit.actor, visit.form.number("id"))
    return visit.go(HERE, "That session has ended.")


def end_others(visit: Visit) -> Response:
    """End all sessions but this one."""
    assert visit.session is not None
    ended = web_sessions.end_others(visit.instance, visit.actor, but=visit.session.id)
    return visit.go(
        HERE, "You were signed in nowhere else." if not ended else f"Ended {count(ended, 'other session')}."
    )


def _codes(visit: Visit, codes: tuple[str, ...], said: str) -> Response:
    """Codes are shown on the answer itself, as no address may show them again."""
    return visit.show("own_codes.html", codes=codes, done=said) if codes else visit.go(HERE, said)


PAGES = (
    page(HERE, show),
    change(f"{HERE}/password", set_password, "iam:self", again=show, hashes=True, undo=f"{HERE}/password"),
    change(f"{HERE}/app", begin_app, "iam:self", dangerous=True, keeps=False),
    change(f"{HERE}/app/confirm", finish_app, "iam:self", again=app_again, dangerous=True, undo=f"{HERE}/remove"),
    change(f"{HERE}/passkeys", add_passkey, "iam:self", again=show, dangerous=True, undo=f"{HERE}/remove"),
    change(f"{HERE}/codes", renew_codes, "iam:self", again=show, dangerous=True, asks=renewing_codes),
    change(f"{HERE}/remove", remove, "iam:self", again=show, dangerous=True, asks=removing),
    change(f"{HERE}/sessions/end", end_session, "iam:self", again=show, undo="/login"),
    change(f"{HERE}/sessions/others", end_others, "iam:self", again=show, undo="/login"),
)
