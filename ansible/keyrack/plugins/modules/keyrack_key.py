#!/usr/bin/python
"""Ansible module: a user's public key in a Keyrack service is there, or is not."""

from __future__ import annotations

DOCUMENTATION = r"""
module: keyrack_key
short_description: SSH public keys of users in Keyrack
description:
  - Registers or removes a public key of the token's own user, or of another one.
  - A key is the same where type and base64 are the same, whatever its comment.
options:
  url: {description: Where the service is., type: str, required: true}
  token: {description: A token of Keyrack., type: str, required: true}
  validate_certs: {description: Whether the service's certificate must hold., type: bool, default: true}
  timeout: {description: Seconds to wait for each answer., type: int, default: 30}
  user: {description: Whose key it is; left out for the token's own user., type: str}
  title: {description: What a new key is called; needed for O(state=present)., type: str}
  key: {description: The public key, one line of OpenSSH's form., type: str, required: true}
  state: {description: Whether the key is there., type: str, choices: [present, absent], default: present}
author: Keyrack
attributes:
  check_mode: {support: full, description: Changes nothing and says what would change.}
  diff_mode: {support: full, description: Shows the key before and after.}
"""
EXAMPLES = r"""
- name: Alice's laptop opens what alice may
  keyrack.keyrack.keyrack_key:
    url: https://keys.example.org
    token: "{{ token }}"
    user: alice
    title: laptop
    key: "{{ lookup('file', 'alice.pub') }}"
"""
RETURN = r"""
key: {description: "The key as it is, or was before it was removed.", type: dict, returned: always}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.keyrack.keyrack.plugins.module_utils import service

API = "/api/v4"
FIELDS = ("id", "title", "key")


def same(one, other):
    """Whether two lines hold the same key."""
    return str(one).split()[:2] == other.split()[:2]


def shown(key):
    """A key for people to compare."""
    return "" if key is None else "%s: %s\n" % (key["title"], " ".join(key["key"].split()[:2]))


def main():
    """Bring the key to the wanted state."""
    module = AnsibleModule(
        argument_spec=dict(
            service.ARGUMENTS,
            user={"type": "str"},
            title={"type": "str"},
            key={"type": "str", "required": True, "no_log": False},
            state={"type": "str", "choices": ["present", "absent"], "default": "present"},
        ),
        required_if=[("state", "present", ("title",))],
        supports_check_mode=True,
    )
    wanted = module.params
    if len(wanted["key"].split()) < 2:
        module.fail_json(msg="key takes one line of an OpenSSH public key file: type and base64.")
    path = API + "/user/keys"
    if wanted["user"] is not None:
        found = service.every(module, API + "/users", ("id",), username=wanted["user"])
        if not found:
            module.fail_json(msg="There is no user %s." % wanted["user"])
        path = "%s/users/%s/keys" % (API, service.segment(found[0]["id"]))
    before = next((key for key in service.every(module, path, FIELDS) if same(key["key"], wanted["key"])), None)
    after = before
    present = wanted["state"] == "present"
    changed = (before is None) == present
    if changed and present:
        after = new = {"title": wanted["title"], "key": wanted["key"].strip()}
        if not module.check_mode:
            after = service.entry(module, "POST " + path, service.call(module, "POST", path, new), FIELDS)
    elif changed:
        after = None
        if not module.check_mode:
            service.call(module, "DELETE", "%s/%s" % (path, before["id"]), missing=True)
    module.exit_json(changed=changed, key=after or before, diff={"before": shown(before), "after": shown(after)})


if __name__ == "__main__":
    main()
