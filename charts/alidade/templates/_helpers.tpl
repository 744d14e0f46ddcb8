{{/* Name that every object of the release begins with. */}}
{{- define "alidade.fullname" -}}
{{- $chart := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains $chart .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $chart | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "alidade.operator" -}}
{{- printf "%s-operator" (include "alidade.fullname" .) -}}
{{- end -}}

{{/* Labels by which the operator's pods are selected; they may never change. */}}
{{- define "alidade.selectorLabels" -}}
app.kubernetes.io/name: alidade
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{/* Labels of every object. Not `managed-by: alidade`: that is on what the operator makes. */}}
{{- define "alidade.labels" -}}
{{ include "alidade.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: alidade
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "alidade.serviceAccountName" -}}
{{- default (include "alidade.operator" .) .Values.serviceAccount.name -}}
{{- end -}}

{{- define "alidade.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository (default .Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "alidade.metricsPort" -}}
{{- default 9090 .Values.config.metricsPort | int -}}
{{- end -}}

{{- define "alidade.webhook" -}}
{{- printf "%s-webhook" (include "alidade.fullname" .) -}}
{{- end -}}

{{/* Secret of the webhook's certificate. */}}
{{- define "alidade.webhookSecret" -}}
{{- printf "%s-certificate" (include "alidade.webhook" .) -}}
{{- end -}}

{{/* Where cert-manager's Secret is mounted. */}}
{{- define "alidade.certificateFolder" -}}
/etc/alidade/certificate
{{- end -}}

{{- define "alidade.admission" -}}
{{- $webhook := .Values.webhook -}}
enabled: {{ $webhook.enabled }}
{{- if $webhook.enabled }}
port: {{ $webhook.port }}
{{- if $webhook.certManager.enabled }}
certificateFolder: {{ include "alidade.certificateFolder" . }}
{{- else }}
service: {{ include "alidade.webhook" . }}
secret: {{ include "alidade.webhookSecret" . }}
configuration: {{ include "alidade.fullname" . }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The operator's configuration: what the values say, and what follows from the release. */}}
{{- define "alidade.config" -}}
{{- $namespace := .Release.Namespace -}}
{{- $own := dict "namespaces" .Values.watchNamespaces "leaderElection" true "leaderNamespace" $namespace -}}
{{- $around := dict "operatorNamespace" $namespace "monitoringNamespace" .Values.monitoring.namespace "admission" (include "alidade.admission" . | fromYaml) -}}
{{- /* A silent leader is replaced after its lease and one of the six looks that others take in its time: within 13 s. */ -}}
{{- $defaults := dict "leaseDurationS" 11 -}}
{{- merge $own $around (deepCopy .Values.config) $defaults | toYaml -}}
{{- end -}}

{{/* What training jobs are on the pools that the values name: PyTorchJob, TrainJob or both, with commas between. */}}
{{- define "alidade.trainingBackends" -}}
{{- $default := default "PyTorchJob" .Values.config.trainingBackend -}}
{{- $kinds := list -}}
{{- range default (list dict) .Values.config.nodePools -}}
  {{- $kinds = append $kinds (default $default .trainingBackend) -}}
{{- end -}}
{{- $kinds | uniq | sortAlpha | join "," -}}
{{- end -}}

{{/* Which namespaces a monitor looks into. */}}
{{- define "alidade.monitoredNamespaces" -}}
{{- if .Values.watchNamespaces -}}
matchNames: {{ .Values.watchNamespaces | toJson }}
{{- else -}}
any: true
{{- end -}}
{{- end -}}

{{- define "alidade.monitorLabels" -}}
{{ include "alidade.labels" . }}
{{- with .Values.monitoring.labels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Pods of the chart's own: under the restricted Pod Security Standard, where the values want them. */}}
{{- define "alidade.podPlacement" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{- define "alidade.relabelings" -}}
# The resource that the pod belongs to, under the labels that the operator's own metrics have, and its part in it.
- sourceLabels: [__meta_kubernetes_pod_label_app_kubernetes_io_instance]
  targetLabel: name
- sourceLabels: [__meta_kubernetes_pod_label_alidade_dev_kind]
  targetLabel: kind
- sourceLabels: [__meta_kubernetes_pod_label_app_kubernetes_io_component]
  targetLabel: component
{{- end -}}
