"""A Kubernetes API server for one machine: kubectl, helm and kopf speak to it as to the real one.

Where it differs from kube-apiserver 1.34, on purpose or for lack of need:

- Resources: those of `builtin` and whatever CRDs define; no CronJob, DaemonSet, StatefulSet, metrics or aggregation.
- Validating webhooks are asked about objects that are created or updated (`admission`), mutating ones are not.
- Stored, but without effect: NetworkPolicy, ResourceQuota, LimitRange, PriorityClass.
- Bodies are JSON or YAML; protobuf only where kubectl insists on it (`protobuf`). Answers are JSON or YAML.
- Pods offer log, binding, eviction, proxy and, over WebSockets only, port-forward; exec and attach are refused with a
  sentence.
- A CRD has one schema for its storage; versions differ in what they prune and default, there is no conversion webhook.
- CEL rules: no optional field syntax (`a.?b`), no cost budget, no type check of rules against the schema, and `size()`
  of text counts bytes.
- A watch resumes within the last 2,048 changes of its resource; the original keeps five minutes.
- Service addresses (clusterIP) are of the loopback network; Services get no node ports, and no load balancers.
- Secrets are not encrypted at rest (the file is the owner's alone).
"""
