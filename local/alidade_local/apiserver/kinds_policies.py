"""Defaults and rules of HorizontalPodAutoscaler, PodDisruptionBudget and NetworkPolicy."""

import re
from collections.abc import Iterator, Sequence
from ipaddress import ip_network
from typing import Any

from alidade_local.apiserver.errors import FieldError, invalid, not_supported, required, too_many
from alidade_local.apiserver.kinds import KindRules
from alidade_local.apiserver.names import label_errors, label_value_errors, qualified_name_problem

Json = dict[str, Any]

_PERCENT = re.compile(r"[0-9]+%")
_PERCENT_RULE = (
    "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for "
    "validation is '[0-9]+%')"
)
_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")


def selector_errors(selector: Json | None, path: str) -> list[FieldError]:
    """What is wrong with a LabelSelector."""
    errors = label_errors((selector or {}).get("matchLabels") or {}, f"{path}.matchLabels")
    for index, expression in enumerate((selector or {}).get("matchExpressions") or ()):
        here = f"{path}.matchExpressions[{index}]"
        operator, values = expression.get("operator", ""), expression.get("values") or ()
        if operator not in _OPERATORS:
            errors.append(invalid(f"{here}.operator", operator, "not a valid selector operator"))
        elif operator in ("In", "NotIn") and not values:
            errors.append(required(f"{here}.values", "must be specified when `operator` is 'In' or 'NotIn'"))
        elif operator in ("Exists", "DoesNotExist") and values:
            detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            errors.append(FieldError(f"{here}.values", "FieldValueForbidden", f"Forbidden: {detail}"))
        if problem := qualified_name_problem(expression.get("key", "")):
            errors.append(invalid(f"{here}.key", expression.get("key", ""), problem))
        for number, value in enumerate(values):
            errors.extend(label_value_errors(value, f"{here}.values[{number}]"))
    return errors


# -- HorizontalPodAutoscaler --------------------------------------------------------------------------------------

_SOURCES = {
    "Resource": "resource",
    "ContainerResource": "containerResource",
    "Pods": "pods",
    "Object": "object",
    "External": "external",
}
_TARGETS = {"Utilization": "averageUtilization", "Value": "value", "AverageValue": "averageValue"}
_LONGEST_WINDOW_S, _LONGEST_PERIOD_S = 3600, 1800
_SELECT = ("Max", "Min", "Disabled")


def _default_autoscaler(autoscaler: Json) -> None:
    spec = autoscaler.setdefault("spec", {})
    if spec.get("minReplicas") is None:
        spec["minReplicas"] = 1
    if not spec.get("metrics"):
        target = {"type": "Utilization", "averageUtilization": 80}
        spec["metrics"] = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]


def _validate_autoscaler(autoscaler: Json, _: Json | None) -> list[FieldError]:
    spec = autoscaler["spec"]
    least, most, target = spec["minReplicas"], spec.get("maxReplicas") or 0, spec.get("scaleTargetRef") or {}
    errors = [required(f"spec.scaleTargetRef.{name}") for name in ("kind", "name") if not target.get(name)]
    if least < 1:
        errors.append(invalid("spec.minReplicas", least, "must be greater than or equal to 1"))
    if most < 1:
        errors.append(invalid("spec.maxReplicas", most, "must be greater than 0"))
    elif most < least:
        errors.append(invalid("spec.maxReplicas", most, "must be greater than or equal to `minReplicas`"))
    for index, metric in enumerate(spec["metrics"]):
        errors += _metric_errors(metric, f"spec.metrics[{index}]")
    for direction in ("scaleUp", "scaleDown"):
        rules = (spec.get("behavior") or {}).get(direction)
        errors += _scaling_errors(rules, f"spec.behavior.{direction}") if rules else []
    return errors


def _metric_errors(metric: Json, path: str) -> list[FieldError]:
    kind = metric.get("type", "")
    if not kind:
        return [required(f"{path}.type", "must specify a metric source type")]
    if kind not in _SOURCES:
        return [not_supported(f"{path}.type", kind, sorted(_SOURCES))]
    name = _SOURCES[kind]
    if not metric.get(name):
        return [required(f"{path}.{name}", "must populate information for the given metric source")]
    errors = [
        FieldError(f"{path}.{other}", "FieldValueForbidden", "Forbidden: must populate the given metric source only")
        for other in _SOURCES.values()
        if other != name and metric.get(other)
    ]
    source, here = metric[name], f"{path}.{name}"
    if kind in ("Resource", "ContainerResource"):
        errors += [required(f"{here}.name", "must specify a resource name")] if not source.get("name") else []
    elif not (source.get("metric") or {}).get("name"):
        errors.append(required(f"{here}.metric.name"))
    if kind == "ContainerResource" and not source.get("container"):
        errors.append(required(f"{here}.container"))
    if kind == "Object":
        described = source.get("describedObject") or {}
        errors += [required(f"{here}.describedObject.{part}") for part in ("kind", "name") if not described.get(part)]
    return errors + _target_errors(kind, source.get("target") or {}, f"{here}.target")


def _target_errors(kind: str, target: Json, path: str) -> list[FieldError]:
    allowed = {"Resource": ("Utilization", "AverageValue"), "Pods": ("AverageValue",)}
    allowed["ContainerResource"] = allowed["Resource"]
    types = allowed.get(kind, ("Value", "AverageValue"))
    if not target.get("type"):
        return [required(f"{path}.type", "must specify a metric target type")]
    if target["type"] not in types:
        return [not_supported(f"{path}.type", target["type"], types)]
    field = _TARGETS[target["type"]]
    value = target.get(field)
    if value is None:
        return [required(f"{path}.{field}", f"must be set for a target of type {target['type']}")]
    number = re.match(r"[+-]?[0-9.]+", str(value))
    if number is None or float(number.group()) <= 0:
        return [invalid(f"{path}.{field}", value, "must be positive")]
    return []


def _scaling_errors(rules: Json, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    window = rules.get("stabilizationWindowSeconds")
    if window is not None and not 0 <= window <= _LONGEST_WINDOW_S:
        field = f"{path}.stabilizationWindowSeconds"
        errors.append(invalid(field, window, f"must be between 0 and {_LONGEST_WINDOW_S}, inclusive"))
    if rules.get("selectPolicy") not in (None, *_SELECT):
        errors.append(not_supported(f"{path}.selectPolicy", rules["selectPolicy"], _SELECT))
    for index, policy in enumerate(rules.get("policies") or ()):
        here = f"{path}.policies[{index}]"
        if policy.get("type") not in ("Pods", "Percent"):
            errors.append(not_supported(f"{here}.type", policy.get("type", ""), ("Percent", "Pods")))
        if (policy.get("value") or 0) <= 0:
            errors.append(invalid(f"{here}.value", policy.get("value", 0), "must be greater than zero"))
        if not 0 < (policy.get("periodSeconds") or 0) <= _LONGEST_PERIOD_S:
            detail = f"must be between 1 and {_LONGEST_PERIOD_S}, inclusive"
            errors.append(invalid(f"{here}.periodSeconds", policy.get("periodSeconds", 0), detail))
    return errors


HORIZONTAL_POD_AUTOSCALER = KindRules(
    default=_default_autoscaler, validate=_validate_autoscaler, counts_generation=False
)


# -- PodDisruptionBudget ------------------------------------------------------------------------------------------


def _default_budget(budget: Json) -> None:
    budget.setdefault("spec", {})


def _validate_budget(budget: Json, _: Json | None) -> list[FieldError]:
    spec = budget["spec"]
    errors: list[FieldError] = []
    if spec.get("minAvailable") is not None and spec.get("maxUnavailable") is not None:
        errors.append(invalid("spec", spec, "minAvailable and maxUnavailable cannot be both set"))
    for name in ("minAvailable", "maxUnavailable"):
        errors += amount_errors(spec.get(name), f"spec.{name}")
    policies = ("AlwaysAllow", "IfHealthyBudget")
    if spec.get("unhealthyPodEvictionPolicy") not in (None, *policies):
        errors.append(not_supported("spec.unhealthyPodEvictionPolicy", spec["unhealthyPodEvictionPolicy"], policies))
    return errors + selector_errors(spec.get("selector"), "spec.selector")


def amount_errors(amount: int | str | None, path: str, *, most: int | None = 100) -> list[FieldError]:
    """What is wrong with a number of pods or a share of them. most: the highest share in percent, None for any."""
    if isinstance(amount, str):
        if not _PERCENT.fullmatch(amount):
            return [invalid(path, amount, _PERCENT_RULE)]
        too_much = most is not None and int(amount[:-1]) > most
        return [invalid(path, amount, f"must not be greater than {most}%")] if too_much else []
    return [invalid(path, amount, "must be greater than or equal to 0")] if amount is not None and amount < 0 else []


POD_DISRUPTION_BUDGET = KindRules(default=_default_budget, validate=_validate_budget)


# -- NetworkPolicy ------------------------------------------------------------------------------------------------

_DIRECTIONS = (("ingress", "from"), ("egress", "to"))
_PROTOCOLS = ("SCTP", "TCP", "UDP")
_PORT_NAME = re.compile(r"(?=[a-z0-9-]{1,15}$)(?=.*[a-z])[a-z0-9]+(-[a-z0-9]+)*")


def _default_network_policy(policy: Json) -> None:
    spec = policy.setdefault("spec", {})
    if spec.get("podSelector") is None:
        spec["podSelector"] = {}
    if not spec.get("policyTypes"):
        spec["policyTypes"] = ["Ingress", *(["Egress"] if spec.get("egress") else [])]
    for _, _, rule in _rules(spec):
        for port in rule.get("ports") or ():
            port.setdefault("protocol", "TCP")


def _rules(spec: Json) -> Iterator[tuple[str, str, Json]]:
    """(path, name of the field with the peers, rule) of every rule."""
    for direction, peers in _DIRECTIONS:
        for index, rule in enumerate(spec.get(direction) or ()):
            yield f"spec.{direction}[{index}]", peers, rule


def _validate_network_policy(policy: Json, _: Json | None) -> list[FieldError]:
    spec = policy["spec"]
    errors = selector_errors(spec["podSelector"], "spec.podSelector")
    if len(spec["policyTypes"]) > 2:
        errors.append(too_many("spec.policyTypes", len(spec["policyTypes"]), 2))
    for index, kind in enumerate(spec["policyTypes"]):
        if kind not in ("Ingress", "Egress"):
            errors.append(not_supported(f"spec.policyTypes[{index}]", kind, ("Egress", "Ingress")))
    for path, peers, rule in _rules(spec):
        for index, port in enumerate(rule.get("ports") or ()):
            errors += _port_errors(port, f"{path}.ports[{index}]")
        for index, peer in enumerate(rule.get(peers) or ()):
            errors += _peer_errors(peer, f"{path}.{peers}[{index}]")
    return errors


def _port_errors(port: Json, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    if port["protocol"] not in _PROTOCOLS:
        errors.append(not_supported(f"{path}.protocol", port["protocol"], _PROTOCOLS))
    number, last = port.get("port"), port.get("endPort")
    if isinstance(number, int) and not 0 < number < 65536:
        errors.append(invalid(f"{path}.port", number, "must be between 1 and 65535, inclusive"))
    if isinstance(number, str) and not _PORT_NAME.fullmatch(number):
        detail = "must be the name of a port: up to 15 of a-z, 0-9 and '-', with a letter, no '-' at an end or twice"
        errors.append(invalid(f"{path}.port", number, detail))
    if last is not None and not isinstance(number, int):
        errors.append(required(f"{path}.port", "must be a number when `endPort` is specified"))
    elif last is not None and isinstance(number, int) and not number <= last < 65536:
        errors.append(invalid(f"{path}.endPort", last, "must be greater than or equal to `port`, and at most 65535"))
    return errors


def _peer_errors(peer: Json, path: str) -> list[FieldError]:
    selectors = [name for name in ("podSelector", "namespaceSelector") if peer.get(name) is not None]
    block = peer.get("ipBlock")
    errors: list[FieldError] = []
    if not selectors and block is None:
        errors.append(required(path, "must specify a peer"))
    for name in selectors:
        errors += selector_errors(peer[name], f"{path}.{name}")
    if block is None:
        return errors
    if selectors:
        detail = "Forbidden: may not be specified when both ipBlock and a selector are"
        errors.append(FieldError(path, "FieldValueForbidden", detail))
    return errors + _block_errors(block.get("cidr", ""), block.get("except") or (), f"{path}.ipBlock")


def _block_errors(cidr: str, exceptions: Sequence[str], path: str) -> list[FieldError]:
    if not cidr:
        return [required(f"{path}.cidr")]
    try:
        whole = ip_network(cidr)
    except ValueError:
        return [invalid(f"{path}.cidr", cidr, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)")]
    errors: list[FieldError] = []
    for index, text in enumerate(exceptions):
        try:
            part = ip_network(text)
        except ValueError:
            part = None
        # Networks of different versions cannot be compared.
        inside = part is not None and part.version == whole.version and part != whole and part.subnet_of(whole)  # type: ignore[arg-type]
        if not inside:
            errors.append(invalid(f"{path}.except[{index}]", text, "must be a strict subset of `cidr`"))
    return errors


NETWORK_POLICY = KindRules(default=_default_network_policy, validate=_validate_network_policy)
