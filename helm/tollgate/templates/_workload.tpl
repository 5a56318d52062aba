{{/* The pods of a hub, a central gate or the injector. */}}

{{- define "tollgate.workload" -}}
{{- $kind := include "tollgate.kind" . }}
apiVersion: apps/v1
kind: {{ $kind }}
metadata:
  name: {{ include "tollgate.component" . }}
  labels:
    {{- include "tollgate.labels" . | nindent 4 }}
spec:
  {{- if not .own.autoscaling.enabled }}
  replicas: {{ include "tollgate.replicas" . }}
  {{- end }}
  selector:
    matchLabels:
      {{- include "tollgate.selector" . | nindent 6 }}
  {{- if eq $kind "StatefulSet" }}
  serviceName: {{ include "tollgate.component" . }}-pods
  podManagementPolicy: Parallel
  {{- end }}
  {{- with .own.updateStrategy }}
  {{ ternary "strategy" "updateStrategy" (eq $kind "Deployment") }}:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  template:
    metadata:
      labels:
        {{- /* No version of the chart: a new one is no reason for new pods. */}}
        {{- mergeOverwrite (include "tollgate.selector" . | fromYaml) .Values.commonLabels .own.podLabels | toYaml | nindent 8 }}
      annotations:
        kubectl.kubernetes.io/default-container: tollgate
        {{- include "tollgate.podAnnotations" . | trim | nindent 8 }}
    spec:
      {{- include "tollgate.podSpec" . | nindent 6 }}
  {{- if include "tollgate.disk" . }}
  volumeClaimTemplates:
  - metadata:
      name: data
      {{- with .own.persistence.annotations }}
      annotations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
    spec:
      accessModes: [ReadWriteOnce]
      {{- with .own.persistence.storageClass }}
      storageClassName: {{ . }}
      {{- end }}
      resources:
        requests:
          storage: {{ .own.persistence.size }}
  {{- end }}
{{- end }}

{{/* The configuration is read once, so a new one means new pods. What is read again when it changes is not in the checksum. */}}
{{- define "tollgate.podAnnotations" -}}
{{- if not (or .own.existingConfigMap (eq .component "injector")) -}}
checksum/config: {{ include "tollgate.config" . | sha256sum }}
{{- end }}
{{- with .own.podAnnotations }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "tollgate.podSpec" -}}
{{- $of := ternary "injector." "" (eq .component "injector") -}}
serviceAccountName: {{ include "tollgate.serviceAccount" . }}
{{- /* Only where somebody speaks to the API server. */}}
automountServiceAccountToken: {{ and (eq .component "injector") (eq (include "tollgate.injector.makes" .) "true") }}
enableServiceLinks: false
terminationGracePeriodSeconds: {{ .own.terminationGracePeriodSeconds | default (include "tollgate.stopSeconds" .) }}
securityContext:
  {{- include "tollgate.podSecurityContext" . | nindent 2 }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
{{ toYaml . }}
{{- end }}
{{- with .own.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .own.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .own.tolerations }}
tolerations:
{{ toYaml . }}
{{- end }}
{{- with .own.affinity }}
affinity:
  {{- tpl (toYaml .) $ | nindent 2 }}
{{- end }}
topologySpreadConstraints:
{{- if kindIs "invalid" .own.topologySpreadConstraints }}
{{- range $over := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
- topologyKey: {{ $over }}
  maxSkew: 1
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- include "tollgate.selector" $ | nindent 6 }}
  # Old pods, which are about to go, do not count.
  matchLabelKeys: [{{ ternary "pod-template-hash" "controller-revision-hash" (eq (include "tollgate.kind" $) "Deployment") }}]
{{- end }}
{{- else }}
{{ tpl (toYaml .own.topologySpreadConstraints) . }}
{{- end }}
{{- with .own.initContainers }}
initContainers:
{{ tpl (toYaml .) $ }}
{{- end }}
containers:
- {{ include (printf "tollgate.%scontainer" $of) . | nindent 2 | trim }}
{{- with .own.extraContainers }}
{{ tpl (toYaml .) $ }}
{{- end }}
volumes:
{{ include (printf "tollgate.%svolumes" $of) . }}
{{- with .own.extraVolumes }}
{{ tpl (toYaml .) $ }}
{{- end }}
{{- end }}
