"""Policy: the harvest rules of each node, with what they would have harvested recently."""

from collections.abc import Callable
from typing import NamedTuple

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from console.access.roles import requires
from console.analysis.group_lines import BadGroupLineError, group_lines, read_group_lines
from console.analysis.policy_preview import preview, recorded
from console.analysis.rule_form import Field, Problem, changed_fields, read_rules, rule_fields, texts_of
from console.context import Console, console_of
from console.steering.publish import set_policy
from console.web.filters import Filter, chosen_in
from console.web.guard import field, form
from console.web.languages import N_, translator
from console.web.navigation import Page
from console.web.rendering import is_fragment, render
from schemas.messages import Policy
from schemas.policy_rules import HarvestRules
from schemas.topics import HANDLERS

GROUPS = "groups"
"""Field of the groups of devices, which are beside the rules in a policy."""
MAX_SHOWN = 60
"""Most nodes in the list; the others are found by a part of their name."""
TITLES = {
    "auto_confidence": N_("Confidence for lane auto"),
    "auto": N_("Use lane auto"),
    "auto_by_class": N_("Confidence for lane auto, by class"),
    "uncertain_above": N_("Uncertainty for lane hard"),
    "hard_novelty": N_("Novelty for lane hard"),
    "audit_share": N_("Share drawn for audits"),
    "audits_per_day": N_("Audits per day"),
    "audits_per_device": N_("Audits per device and day"),
    "quota_per_day": N_("Samples per class and day"),
    "quotas": N_("Samples per day, by class"),
    "near_duplicate_bits": N_("Distance of near-duplicates, bits"),
    "near_duplicate_s": N_("Skip near-duplicates for, seconds"),
    GROUPS: N_("Group of each device"),
    "caps.per_minute": N_("Samples per minute"),
    "caps.per_hour": N_("Samples per hour"),
    "caps.per_day": N_("Samples per day"),
    "caps.bytes_per_minute": N_("Bytes per minute"),
    "caps.bytes_per_hour": N_("Bytes per hour"),
    "caps.bytes_per_day": N_("Bytes per day"),
}
HELP = {
    "auto_confidence": N_("A photo of at least this confidence is harvested with the model's label."),
    "auto": N_("Off: photos that the model is sure of are not harvested."),
    "auto_by_class": N_("One line per class: name = confidence."),
    "uncertain_above": N_("A greater uncertainty, from 0 to 1, is for people to label."),
    "hard_novelty": N_("Above 1 a photo is unlike those of the training."),
    "audit_share": N_("A random share of all photos, to measure the accuracy: 0.02 is 2 %%."),
    "quotas": N_("One line per class: name = number."),
    "near_duplicate_s": N_("0 harvests near-duplicates too."),
    GROUPS: N_(
        "One line per device or pattern, such as meter-* = meters. A group may get a head of its own. "
        "With * as the group, each of these devices is one."
    ),
}
SECTIONS = (
    (N_("Lanes"), ("auto", "auto_confidence", "auto_by_class", "uncertain_above", "hard_novelty")),
    (N_("Audits"), ("audit_share", "audits_per_day", "audits_per_device")),
    (N_("Quotas"), ("quota_per_day", "quotas", "near_duplicate_bits", "near_duplicate_s")),
    (N_("Groups of devices"), (GROUPS,)),
    (N_("Caps of a node"), tuple(name for name in TITLES if name.startswith("caps."))),
)


class NodePolicy(NamedTuple):
    """A node with its policy; None if it uses its own configuration."""

    node: str
    policy: Policy | None


async def _list(request: Request) -> Response:
    console, chosen = console_of(request), chosen_in(request, ["node"])
    part = chosen["node"].strip().lower()
    known = _nodes(console)
    found = [node for node in known if part in node]
    values = {
        "nodes": [_policy_of(console, node) for node in found[:MAX_SHOWN]],
        "hidden": max(0, len(found) - MAX_SHOWN),
        "any_nodes": bool(known),
        "chosen": chosen,
        "filters": [Filter("node", translator(request).gettext("Node"), {})],
    }
    return render(request, "policy/_nodes.html" if is_fragment(request) else "policy.html", values)


async def _edit(request: Request) -> Response:
    console = console_of(request)
    one = _policy_of(console, _node(request))
    return _form(request, one, _texts_of(one), {})


@requires("operator")
async def _preview(request: Request) -> Response:
    console = console_of(request)
    one, texts = _policy_of(console, _node(request)), _texts(request)
    rules, groups, problems = _read(request, texts, one)
    if rules is None or groups is None:
        return _form(request, one, texts, problems, status_code=422)
    results = console.live.recent.of(one.node)
    return render(
        request,
        "policy/preview.html",
        {
            "one": one,
            "texts": texts,
            "changes": _changes(one, rules, groups),
            "before": recorded(results),
            "after": preview(results, rules),
            "titles": TITLES,
            "issued": _issued(one),
        },
    )


@requires("operator")
async def _set(request: Request) -> Response:
    console = console_of(request)
    one, texts = _policy_of(console, _node(request)), _texts(request)
    rules, groups, problems = _read(request, texts, one)
    if rules is None or groups is None:
        return _form(request, one, texts, problems, status_code=422)
    if field(request, "issued") != _issued(one):
        message = translator(request).gettext(
            "Somebody else has changed this policy meanwhile. These are its rules now."
        )
        return _form(request, one, _texts_of(one), {}, notice=message, status_code=409)
    changes = {name: [old, new] for name, old, new in _changes(one, rules, groups)}
    # Before it is done: what is not recorded must not happen.
    await console.audit.record(request, "policy.set", node=one.node, changes=changes)
    await set_policy(console, one.node, rules, groups)
    return RedirectResponse(f"/policy/{one.node}?set=1", 303)


def _form(
    request: Request,
    one: NodePolicy,
    texts: dict[str, str],
    problems: dict[str, str],
    *,
    notice: str = "",
    status_code: int = 200,
) -> Response:
    fields = {one.name: one for one in rule_fields()}
    fields[GROUPS] = Field(GROUPS, "by-class", 0, None, whole=False, default={})
    return render(
        request,
        "policy/form.html",
        {
            "one": one,
            "texts": texts,
            "problems": problems,
            "notice": notice,
            "done": request.query_params.get("set") == "1",
            "fields": fields,
            "sections": SECTIONS,
            "titles": TITLES,
            "helps": HELP,
        },
        status_code=status_code,
    )


def _read(
    request: Request, texts: dict[str, str], one: NodePolicy
) -> tuple[HarvestRules | None, dict[str, str] | None, dict[str, str]]:
    """Read the form: rules and groups, each None if a field is wrong, and a sentence for each such field."""
    rules, problems = read_rules(texts, _base(one))
    sentences = _sentences(request, problems)
    try:
        return rules, read_group_lines(texts.get(GROUPS, "")), sentences
    except BadGroupLineError as error:
        expected = translator(request).gettext(
            "“%(line)s”: expected a device or pattern, an equals sign and a group of small letters, digits "
            "and inner hyphens, or *"
        )
        return rules, None, sentences | {GROUPS: expected % {"line": error.line}}


def _changes(one: NodePolicy, rules: HarvestRules, groups: dict[str, str]) -> list[tuple[str, str, str]]:
    """Return name, old text and new text of each field that differs."""
    old, new = group_lines(_groups(one)), group_lines(groups)
    return changed_fields(_base(one), rules) + ([(GROUPS, old, new)] if old != new else [])


def _texts_of(one: NodePolicy) -> dict[str, str]:
    return texts_of(_base(one)) | {GROUPS: group_lines(_groups(one))}


def _sentences(request: Request, problems: list[Problem]) -> dict[str, str]:
    gettext = translator(request).gettext
    return {one.field.name: _sentence(gettext, one) for one in problems}


def _sentence(gettext: Callable[[str], str], problem: Problem) -> str:
    bounds = _bounds(gettext, problem.field)
    if problem.line:
        return gettext("“%(line)s”: expected a class, an equals sign and %(bounds)s") % {
            "line": problem.line,
            "bounds": bounds,
        }
    return gettext("expected %(bounds)s") % {"bounds": bounds}


def _bounds(gettext: Callable[[str], str], one: Field) -> str:
    values = {"low": f"{one.low:g}", "high": f"{one.high:g}" if one.high is not None else ""}
    if one.high is None:
        text = (
            gettext("a whole number of at least %(low)s")
            if one.whole
            else gettext("a number of at least %(low)s")
        )
    else:
        text = (
            gettext("a whole number from %(low)s to %(high)s")
            if one.whole
            else gettext("a number from %(low)s to %(high)s")
        )
    return text % values


def _texts(request: Request) -> dict[str, str]:
    return {name: values[0] for name, values in form(request).items()}


def _nodes(console: Console) -> list[str]:
    edges = {node for node, name in console.live.statuses if name in HANDLERS}
    return sorted({*edges, *console.live.policies})


def _node(request: Request) -> str:
    node: str = request.path_params["node"]
    if node not in _nodes(console_of(request)):
        raise HTTPException(404)
    return node


def _policy_of(console: Console, node: str) -> NodePolicy:
    return NodePolicy(node, console.live.policies.get(node))


def _base(one: NodePolicy) -> HarvestRules:
    return HarvestRules() if one.policy is None else one.policy.harvest


def _groups(one: NodePolicy) -> dict[str, str]:
    return {} if one.policy is None else one.policy.groups


def _issued(one: NodePolicy) -> str:
    return "" if one.policy is None else str(one.policy.issued_at_ms)


PAGE = Page(
    name="policy",
    path="/policy",
    title=N_("Policy"),
    icon="policy",
    routes=(
        Route("/policy", _list),
        Route("/policy/{node}", _edit),
        Route("/policy/{node}/preview", _preview, methods=["POST"]),
        Route("/policy/{node}", _set, methods=["POST"]),
    ),
)
