{{/* Names, labels and the image. */}}

{{- define "tollgate.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 45 | trimSuffix "-" }}
{{- end }}

{{/* Short enough for what is hung on it, such as the hash of a StatefulSet's revision. */}}
{{- define "tollgate.fullname" -}}
{{- $name := include "tollgate.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 45 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 45 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 45 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* Name of a component's objects. */}}
{{- define "tollgate.component" -}}
{{ include "tollgate.fullname" . }}-{{ .component }}
{{- end }}

{{/* Labels by which a component's pods are known; never changed. */}}
{{- define "tollgate.selector" -}}
app.kubernetes.io/name: {{ include "tollgate.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end }}

{{- define "tollgate.labels" -}}
{{ include "tollgate.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "tollgate.image" -}}
{{- with .Values.image }}
{{- with .registry }}{{ . }}/{{ end }}{{ .repository }}
{{- if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{- define "tollgate.serviceAccount" -}}
{{- $account := .own.serviceAccount }}
{{- $account.name | default (ternary (include "tollgate.component" .) "default" $account.create) }}
{{- end }}
