{{/*
What the operator may do in a namespace that it serves. tests/charts compares this with what its code does: a rule more is
a failure there, and so is a rule less.
*/}}
{{- define "alidade.namespacedRules" -}}
# The resources: watched, and told of in their status.
- apiGroups: [alidade.dev]
  resources: [alignmentruns, evaluations, finetunejobs, modelserves, rewardmodels]
  verbs: [list, watch]
- apiGroups: [alidade.dev]
  resources:
    - alignmentruns/status
    - evaluations/status
    - finetunejobs/status
    - modelserves/status
    - rewardmodels/status
  verbs: [patch]
# Owner references that block the owner's deletion are let through for these only, where the cluster checks that.
- apiGroups: [alidade.dev]
  resources:
    - alignmentruns/finalizers
    - evaluations/finalizers
    - finetunejobs/finalizers
    - modelserves/finalizers
    - rewardmodels/finalizers
  verbs: [update]
# Stages of an AlignmentRun; what has a time to live is deleted when that is over.
- apiGroups: [alidade.dev]
  resources: [evaluations, finetunejobs, rewardmodels]
  verbs: [get, create, patch, delete]
- apiGroups: [alidade.dev]
  resources: [modelserves]
  verbs: [create, patch]
- apiGroups: [alidade.dev]
  resources: [alignmentruns]
  verbs: [delete]
# Jobs: made and removed, never changed.
- apiGroups: [kubeflow.org]
  resources: [pytorchjobs]
  verbs: [get, list, watch, create, delete]
- apiGroups: [trainer.kubeflow.org]
  resources: [trainjobs]
  verbs: [get, list, watch, create, delete]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
# What a TrainJob's pods are; it is brought up to date before each attempt, and goes with its resource.
- apiGroups: [trainer.kubeflow.org]
  resources: [trainingruntimes]
  verbs: [get, create, patch]
# What Kueue says of a job that it holds back.
- apiGroups: [kueue.x-k8s.io]
  resources: [workloads]
  verbs: [list]
# Served models, and what is around their pods.
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [keda.sh]
  resources: [scaledobjects]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [monitoring.coreos.com]
  resources: [podmonitors]
  verbs: [get, list, watch, create, patch, delete]
# Documents of jobs, which are applied, and data in ConfigMaps, which is looked at by its name: none are listed.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, create, patch]
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [events]
  verbs: [create]
{{- end -}}
