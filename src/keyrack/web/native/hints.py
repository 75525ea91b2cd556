"""What a caller of Keyrack's own API can do after an error; must refuse nothing itself."""

from __future__ import annotations

HINTS = {
    "server-missing": "GET /servers lists which there are",
    "user-missing": "GET /people lists the users",
    "member-missing": "GET /groups/{group} shows who is in it",
    "group-missing": "GET /groups lists which there are",
    "grant-missing": "GET /grants lists which there are",
    "request-missing": "GET /requests lists which there are",
    "rule-missing": "GET /request-rules lists which there are",
    "token-missing": "GET /tokens lists which there are",
    "repository-missing": "GET /repositories lists which you may see",
    "system-user-missing": "GET /servers/{server}/system-users lists which there are",
    "session-missing": "GET /servers/{server}/sessions lists which there are",
    "unmanaged-key-missing": "GET /servers/{server}/unmanaged-keys lists which there are",
    "SSH-key-missing": "GET /servers/{server}/credentials, /people/me/keys and /user-keys list which there are",
    "key-source-missing": "GET /people/{person}/key-sources lists which there are",
    "webhook-missing": "GET /webhooks lists which there are",
    "freeze-missing": "GET /freezes lists which there are",
    "offboarding-missing": "GET /offboardings lists which there are",
    "event-missing": "GET /events lists which there are",
    "alarm-missing": "GET /alarms lists which there are",
    "damaged-row-missing": "GET /damaged-rows lists which there are",
    "revoked-key-missing": "GET /keys/revoked lists which there are",
    "account-missing": "PUT /servers/{server} with system_users adds it",
    "server-ambiguous": "GET /servers?search=NAME shows the ids",
    "changed": "GET it again, and send its ETag",
}
"""By the code of the refusal."""


def of(code: str) -> str:
    """The hint for a code, a sentence; "" for none."""
    words = HINTS.get(code)
    return f"{words}." if words else ""
