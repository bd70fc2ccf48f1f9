{{- /* The release's name is that of all its objects, with "stickyproxy" in it. */ -}}
{{- define "stickyproxy.name" -}}
{{- if contains "stickyproxy" .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-stickyproxy" .Release.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "stickyproxy.selector" -}}
app.kubernetes.io/name: stickyproxy
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "stickyproxy.labels" -}}
{{ include "stickyproxy.selector" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "stickyproxy.account" -}}
{{- .Values.serviceAccount.name | default (ternary (include "stickyproxy.name" .) "default" .Values.serviceAccount.create) }}
{{- end }}

{{- define "stickyproxy.secret" -}}
{{- .Values.secret.name | default (include "stickyproxy.name" .) }}
{{- end }}

{{- /* The namespace of the app's Service. */ -}}
{{- define "stickyproxy.appNamespace" -}}
{{- if and (not .Values.backends.dns) (contains "/" .Values.backends.kubernetesService) }}{{ splitList "/" .Values.backends.kubernetesService | first }}{{ else }}{{ .Release.Namespace }}{{ end }}
{{- end }}

{{- /* The app's pods, as a peer of a NetworkPolicy. */ -}}
{{- define "stickyproxy.appPods" -}}
{{- if eq (include "stickyproxy.appNamespace" .) .Release.Namespace -}}
- podSelector: {{- if .Values.networkPolicy.appLabels }}
    matchLabels: {{- toYaml .Values.networkPolicy.appLabels | nindent 6 }}
  {{- else }} {}
  {{- end }}
{{- else -}}
- namespaceSelector:
    matchLabels: {kubernetes.io/metadata.name: {{ include "stickyproxy.appNamespace" . }}}
  {{- with .Values.networkPolicy.appLabels }}
  podSelector:
    matchLabels: {{- toYaml . | nindent 6 }}
  {{- end }}
{{- end }}
{{- end }}

{{- /* Settings of `stickyproxy run` as its environment. */ -}}
{{- define "stickyproxy.environment" -}}
{{- if .Values.backends.dns }}
STICKYPROXY_DNS: {{ .Values.backends.dns | quote }}
{{- else }}
STICKYPROXY_KUBERNETES_SERVICE: {{ .Values.backends.kubernetesService | quote }}
{{- end }}
STICKYPROXY_DRAIN_TIMEOUT: {{ printf "%ds" (int .Values.drain.timeoutSeconds) | quote }}
STICKYPROXY_SHUTDOWN_DELAY: 0s
STICKYPROXY_ADMIN: 0.0.0.0:9090
{{- range $name, $value := .Values.settings }}
{{- /* Helm reads a whole number as a float, and would write a large one as 1e+07. */ -}}
{{- if and (kindIs "float64" $value) (eq $value (floor $value)) }}{{ $value = int64 $value }}{{ end }}
{{- if kindIs "slice" $value }}{{ $value = join "," $value }}{{ end }}
STICKYPROXY_{{ $name | upper | replace "-" "_" }}: {{ $value | toString | quote }}
{{- end }}
{{- end }}
