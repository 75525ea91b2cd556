#!/usr/bin/python
"""Ansible module: a grant in a Keyrack service is there, or is not."""

from __future__ import annotations

DOCUMENTATION = r"""
module: keyrack_grant
short_description: Who may log in where, in Keyrack
description:
  - Gives or takes back a grant of a user or group for a system user of a server, or of all servers with a tag.
  - A grant with another end or other restrictions than wanted is given anew and then the old one is taken back.
options:
  url: {description: Where the service is., type: str, required: true}
  token: {description: A token of Keyrack., type: str, required: true}
  validate_certs: {description: Whether the service's certificate must hold., type: bool, default: true}
  timeout: {description: Seconds to wait for each answer., type: int, default: 30}
  user: {description: The user who may log in; or name a group., type: str}
  group: {description: The group whose members may log in., type: str}
  server: {description: The server, by name; or name a tag., type: str}
  tag: {description: All servers with this tag, now and later., type: str}
  system_user: {description: As whom they log in., type: str, required: true}
  expires_at:
    description: When it ends, such as 2026-12-24T18:00:00Z; left out, an end that is there stays.
    type: str
  restrictions:
    description: What the keys may do; left out, what is there stays, and a new grant restricts nothing.
    type: dict
  state: {description: Whether the grant is there., type: str, choices: [present, absent], default: present}
author: Keyrack
attributes:
  check_mode: {support: full, description: Changes nothing and says what would change.}
  diff_mode: {support: full, description: Shows the grants before and after.}
"""
EXAMPLES = r"""
- name: The developers may deploy
  keyrack.keyrack.keyrack_grant:
    url: https://keys.example.org
    token: "{{ token }}"
    group: developers
    tag: web
    system_user: deploy
"""
RETURN = r"""
grant: {description: "The grant as it is, or was before it was taken back.", type: dict, returned: always}
"""

import json
from datetime import datetime, timezone

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.keyrack.keyrack.plugins.module_utils import service

PATH = "/api/keyrack/v1/grants"
PLACE = ("user", "group", "server", "tag", "system_user")
FIELDS = ("id", *PLACE, "expires_at", "restrictions")


def moment(text):
    """A time of the service's form or the user's as one value; None for no end."""
    if text is None:
        return None
    read = datetime.fromisoformat(text.strip().upper().replace("Z", "+00:00"))
    if read.tzinfo is None:
        raise ValueError(text)
    # The service shows an end to the second.
    return read.astimezone(timezone.utc).replace(microsecond=0)


def shown(grants):
    """Grants for people to compare."""
    kept = [{name: grant.get(name) for name in (*PLACE, "expires_at", "restrictions")} for grant in grants]
    return "".join(json.dumps(grant, sort_keys=True) + "\n" for grant in kept)


def as_wanted(grant, wanted):
    """Whether a grant of the right place also has the wanted end and restrictions."""
    if wanted["expires_at"] is not None and moment(grant["expires_at"]) != moment(wanted["expires_at"]):
        return False
    return wanted["restrictions"] is None or plain(grant["restrictions"]) == plain(wanted["restrictions"])


def plain(restrictions):
    """Restrictions as the service shows them, without what restricts nothing: null, and restrict where it is false.

    An empty list stays: whoever wrote it meant nobody, and the service refuses it.
    """
    kept = {name: value for name, value in (restrictions or {}).items() if value is not None}
    return {name: value for name, value in kept.items() if name != "restrict" or value is not False}


def is_over(grant):
    """Whether its end has come: what is over opens nothing, and so is not the wanted one."""
    end = moment(grant["expires_at"])
    return end is not None and end <= datetime.now(timezone.utc)


def main():
    """Bring the grant to the wanted state."""
    module = AnsibleModule(
        argument_spec=dict(
            service.ARGUMENTS,
            **{name: {"type": "str"} for name in ("user", "group", "server", "tag", "expires_at")},
            system_user={"type": "str", "required": True},
            restrictions={"type": "dict"},
            state={"type": "str", "choices": ["present", "absent"], "default": "present"},
        ),
        required_one_of=[("user", "group"), ("server", "tag")],
        mutually_exclusive=[("user", "group"), ("server", "tag")],
        supports_check_mode=True,
    )
    wanted = dict(module.params)
    if wanted["restrictions"] is not None:
        wanted["restrictions"] = plain(wanted["restrictions"])
    try:
        moment(wanted["expires_at"])
    except ValueError:
        module.fail_json(msg="expires_at takes a time with a zone, such as 2026-12-24T18:00:00Z.")
    listed = service.every(module, PATH, FIELDS)
    before = [grant for grant in listed if all(grant[name] == wanted[name] for name in PLACE)]
    present = wanted["state"] == "present"
    kept = [grant for grant in before if present and not is_over(grant) and as_wanted(grant, wanted)]
    gone = [grant for grant in before if grant not in kept]
    new = {name: wanted[name] for name in (*PLACE, "expires_at", "restrictions") if wanted[name] is not None}
    missing = present and not kept
    changed = missing or bool(gone)
    after = kept
    if missing:
        if gone:
            # What was left out stays as it was, so that nobody gets more than before by a change of one field.
            new.setdefault("restrictions", gone[0]["restrictions"] or None)
            if not is_over(gone[0]):
                new.setdefault("expires_at", gone[0]["expires_at"])
        after = [dict.fromkeys((*PLACE, "expires_at", "restrictions"), None) | new]
    if changed and not module.check_mode:
        if missing:
            body = {name: value for name, value in new.items() if value is not None}
            after = [service.entry(module, "POST " + PATH, service.call(module, "POST", PATH, body), FIELDS)]
        for grant in gone:
            service.call(module, "DELETE", "%s/%s" % (PATH, grant["id"]), missing=True)
    last = (after or before or [None])[0]
    module.exit_json(changed=changed, grant=last, diff={"before": shown(before), "after": shown(after)})


if __name__ == "__main__":
    main()
