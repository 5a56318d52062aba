{{/* ConfigMaps of a component, and its certificate: for sidecars too. */}}

{{- define "tollgate.configMap" -}}
{{- if not .own.existingConfigMap }}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ include "tollgate.component" . }}
  labels:
    {{- include "tollgate.labels" . | nindent 4 }}
data:
  tollgate.yaml: |
    {{- include "tollgate.config" . | nindent 4 }}
{{- end }}
{{- end }}

{{/* Of cert-manager, where it issues. A certificate made by a template would be another with every rendering. */}}
{{- define "tollgate.issued" -}}
{{- if and (include "tollgate.certified" .) .Values.certManager.issuerRef (not .own.tls.existingSecret) }}
{{- $name := include "tollgate.component" . }}
{{- $names := list (include "tollgate.identity" .) }}
{{- if ne .component "sidecar" }}
{{- $hosts := ternary (list $name) (list $name (printf "*.%s-pods" $name)) (eq .component "injector") }}
{{- range $host := $hosts }}
{{- range list ($.Release.Namespace) (printf "%s.svc" $.Release.Namespace) (printf "%s.svc.cluster.local" $.Release.Namespace) }}
{{- $names = append $names (printf "%s.%s" $host .) }}
{{- end }}
{{- end }}
{{- end }}
{{- $uris := list }}
{{- $hosts := list }}
{{- range concat $names .own.tls.names | uniq }}
{{- if contains "://" . }}{{ $uris = append $uris . }}{{ else }}{{ $hosts = append $hosts . }}{{ end }}
{{- end }}
apiVersion: cert-manager.io/v1
kind: Certificate
metadata:
  name: {{ $name }}
  labels:
    {{- include "tollgate.labels" . | nindent 4 }}
spec:
  secretName: {{ include "tollgate.certificate" . }}
  issuerRef:
    {{- toYaml .Values.certManager.issuerRef | nindent 4 }}
  {{- with $hosts }}
  dnsNames:
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- with $uris }}
  uris:
  {{- toYaml . | nindent 2 }}
  {{- end }}
  usages: [digital signature, server auth, client auth]
  privateKey: {algorithm: ECDSA, size: 256, rotationPolicy: Always}
  {{- with .Values.certManager.spec }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- end }}
