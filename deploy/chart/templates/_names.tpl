{{/* Names and labels, and what every container is held to. */}}

{{- define "hope-serve.name" -}}
{{- $name := .Release.Name }}
{{- if not (contains .Chart.Name $name) }}{{ $name = printf "%s-%s" $name .Chart.Name }}{{ end }}
{{- $name | trunc 50 | trimSuffix "-" }}
{{- end }}

{{/* The headless Service whose name Envoy resolves to the pods' addresses. */}}
{{- define "hope-serve.pods" -}}
{{ include "hope-serve.name" . }}-pods
{{- end }}

{{- define "hope-serve.proxy" -}}
{{ include "hope-serve.name" . }}-proxy
{{- end }}

{{/* Called with (list . component). */}}
{{- define "hope-serve.selector" -}}
app.kubernetes.io/name: hope-serve
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "hope-serve.labels" -}}
{{ include "hope-serve.selector" . }}
app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
helm.sh/chart: {{ printf "%s-%s" (index . 0).Chart.Name (index . 0).Chart.Version }}
{{- end }}

{{- define "hope-serve.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "hope-serve.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Apart over nodes and zones, as far as there are any. Called with (list . component). */}}
{{- define "hope-serve.spread" -}}
{{- range $key := list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
- maxSkew: 1
  topologyKey: {{ $key }}
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- include "hope-serve.selector" $ | nindent 6 }}
{{- end }}
{{- end }}
