"""Keyrack's own API: requests for access, and the rules for them; must hold no rule of its own."""

from __future__ import annotations

from keyrack.core.keys import requests
from keyrack.store.keys.requests import AccessRequest
from keyrack.web.api import Call
from keyrack.web.native import shapes_requests as shapes
from keyrack.web.native.calls import endpoint


def list_requests(call: Call, asked: shapes.RequestsAsked) -> shapes.AccessRequestPage:
    """List requests for access, newest first; members see their own"""
    page, names = requests.page(call.instance, call.actor, state=asked.state, **asked.window())
    return shapes.AccessRequestPage.of(page, lambda one: shapes.access_request(one, names))


def ask(call: Call, new: shapes.NewRequest) -> shapes.AccessRequest:
    """Ask to log in somewhere for a while"""
    made = requests.ask(
        call.instance,
        call.actor,
        server=new.server,
        tag=new.tag,
        system_user=new.system_user,
        duration=new.duration,
        reason=new.reason,
    )
    return _shown(call, made)


def show_request(call: Call) -> shapes.AccessRequest:
    """Show a request for access"""
    return _shown(call, requests.get(call.instance, call.actor, call.ids["request"]))


def approve(call: Call, decision: shapes.RequestDecision) -> shapes.AccessRequest:
    """Approve a request; with the last approval that it needs, access begins"""
    done = requests.approve(call.instance, call.actor, call.ids["request"], word=decision.reason)
    return _shown(call, done)


def deny(call: Call, decision: shapes.RequestDecision) -> shapes.AccessRequest:
    """Deny a request"""
    done = requests.deny(call.instance, call.actor, call.ids["request"], word=decision.reason)
    return _shown(call, done)


def cancel(call: Call) -> shapes.AccessRequest:
    """Cancel a request of your own"""
    return _shown(call, requests.cancel(call.instance, call.actor, call.ids["request"]))


def list_rules(call: Call) -> shapes.Rules:
    """List the rules of requests"""
    return shapes.Rules(items=[shapes.rule(one) for one in requests.rules(call.instance, call.actor)])


def show_rule(call: Call) -> shapes.Rule:
    """Show a rule of requests"""
    return shapes.rule(requests.rule(call.instance, call.actor, call.path["rule"]))


def put_rule(call: Call, new: shapes.NewRule) -> shapes.Rule:
    """Set how many people must approve requests, for all or for a server, a tag or a system user"""
    made, _ = requests.put_rule(
        call.instance,
        call.actor,
        call.path["rule"],
        approvers=new.approvers,
        server=new.server,
        tag=new.tag,
        system_user=new.system_user,
        max_duration=new.max_duration,
    )
    return shapes.rule(made)


def delete_rule(call: Call) -> None:
    """Delete a rule of requests"""
    requests.delete_rule(call.instance, call.actor, call.path["rule"])


def _shown(call: Call, one: AccessRequest) -> shapes.AccessRequest:
    return shapes.access_request(one, requests.names(call.instance, call.actor, one))


_ASK, _APPROVE, _RULE = "requests:ask", "requests:approve", "requests:rule"
_ONE = shapes.AccessRequest
ENDPOINTS = (
    endpoint("GET", "/requests", list_requests, _ASK, asks=shapes.RequestsAsked, answers=shapes.AccessRequestPage),
    endpoint(
        "POST",
        "/requests",
        ask,
        _ASK,
        takes=shapes.NewRequest,
        answers=_ONE,
        shown_at="/requests/{id}",
        status=201,
    ),
    endpoint("GET", "/requests/{request}", show_request, _ASK, answers=_ONE),
    endpoint("POST", "/requests/{request}/approve", approve, _APPROVE, takes=shapes.RequestDecision, answers=_ONE),
    endpoint("POST", "/requests/{request}/deny", deny, _APPROVE, takes=shapes.RequestDecision, answers=_ONE),
    endpoint("POST", "/requests/{request}/cancel", cancel, _ASK, answers=_ONE),
    endpoint("GET", "/request-rules", list_rules, "grants:read", answers=shapes.Rules),
    endpoint("GET", "/request-rules/{rule}", show_rule, "grants:read", answers=shapes.Rule),
    endpoint("PUT", "/request-rules/{rule}", put_rule, _RULE, takes=shapes.NewRule, answers=shapes.Rule),
    endpoint("DELETE", "/request-rules/{rule}", delete_rule, _RULE),
)
