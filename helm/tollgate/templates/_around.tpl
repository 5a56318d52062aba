{{/* What stands around the pods of a hub or a central gate. Each is empty where it is not wanted. */}}

{{- define "tollgate.account" -}}
{{- if .own.serviceAccount.create }}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "tollgate.serviceAccount" . }}
  labels:
    {{- include "tollgate.labels" . | nindent 4 }}
  {{- with .own.serviceAccount.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
automountServiceAccountToken: false
{{- end }}
{{- end }}

{{- define "tollgate.service" -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ include "tollgate.component" . }}
  labels:
    {{- include "tollgate.labels" . | nindent 4 }}
  {{- with .own.service.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  type: {{ .own.service.type }}
  {{- with .own.service.trafficDistribution }}
  trafficDistribution: {{ . }}
  {{- end }}
  selector:
    {{- include "tollgate.selector" . | nindent 4 }}
  ports:
  {{- include "tollgate.servicePorts" . | trim | nindent 2 }}
  - name: http
    port: 9193
    targetPort: http
    appProtocol: http
{{- end }}

{{/*
Every pod by itself: for gates, which choose among hubs; for Envoy and other gRPC clients that spread requests
themselves; and for Prometheus.
*/}}
{{- define "tollgate.pods" -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ include "tollgate.component" . }}-pods
  labels:
    {{- include "tollgate.labels" . | nindent 4 }}
spec:
  clusterIP: None
  {{- if has "hub" .own.serves }}
  # A gate finds out by itself which hubs answer, and a name that is gone for a moment may be gone from caches for longer.
  publishNotReadyAddresses: true
  {{- end }}
  selector:
    {{- include "tollgate.selector" . | nindent 4 }}
  ports:
  {{- include "tollgate.servicePorts" . | trim | nindent 2 }}
  - name: metrics
    port: 9193
    targetPort: http
    appProtocol: http
{{- end }}

{{- define "tollgate.autoscaler" -}}
{{- with .own.autoscaling }}
{{- if .enabled }}
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {{ include "tollgate.component" $ }}
  labels:
    {{- include "tollgate.labels" $ | nindent 4 }}
spec:
  scaleTargetRef:
    apiVersion: apps/v1
    kind: {{ include "tollgate.kind" $ }}
    name: {{ include "tollgate.component" $ }}
  minReplicas: {{ int .minReplicas }}
  maxReplicas: {{ int .maxReplicas }}
  metrics:
  - type: Resource
    resource:
      name: cpu
      target: {type: Utilization, averageUtilization: {{ int .cpu }}}
  {{- with .metrics }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- with .behavior }}
  behavior:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "tollgate.disruption" -}}
{{- with .own.podDisruptionBudget }}
{{- if .enabled }}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "tollgate.component" $ }}
  labels:
    {{- include "tollgate.labels" $ | nindent 4 }}
spec:
  {{- if not (kindIs "invalid" .maxUnavailable) }}
  maxUnavailable: {{ .maxUnavailable }}
  {{- else }}
  minAvailable: {{ .minAvailable }}
  {{- end }}
  unhealthyPodEvictionPolicy: {{ .unhealthyPodEvictionPolicy }}
  selector:
    matchLabels:
      {{- include "tollgate.selector" $ | nindent 6 }}
{{- end }}
{{- end }}
{{- end }}

{{- define "tollgate.network" -}}
{{- with .own.networkPolicy }}
{{- if .enabled }}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ include "tollgate.component" $ }}
  labels:
    {{- include "tollgate.labels" $ | nindent 4 }}
spec:
  podSelector:
    matchLabels:
      {{- include "tollgate.selector" $ | nindent 6 }}
  policyTypes: [Ingress{{ if .egress }}, Egress{{ end }}]
  ingress:
  - ports:
    {{- range fromJsonArray (include "tollgate.ports" $) }}
    - {port: {{ .name }}, protocol: TCP}
    {{- end }}
    {{- with .clients }}
    from:
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- if ne $.component "injector" }}
  - ports:
    - {port: http, protocol: TCP}
    {{- with .monitoring }}
    from:
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- end }}
  {{- with .egress }}
  egress:
  - ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "tollgate.scrape" -}}
{{- with .Values.monitoring.scrape }}
{{- if .enabled }}
apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata:
  name: {{ include "tollgate.component" $ }}
  labels:
    {{- mergeOverwrite (include "tollgate.labels" $ | fromYaml) .labels | toYaml | nindent 4 }}
spec:
  selector:
    matchLabels:
      {{- include "tollgate.selector" $ | nindent 6 }}
  endpoints:
  - port: metrics
    interval: {{ .interval }}
{{- end }}
{{- end }}
{{- end }}
