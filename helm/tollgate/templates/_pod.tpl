{{/* The container of a gate and the volumes that it mounts: the same in a hub, a central gate and a sidecar. */}}

{{- define "tollgate.container" -}}
name: tollgate
image: {{ include "tollgate.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args:
- serve
- --config=/etc/tollgate/config/tollgate.yaml
{{- with .own.extraArgs }}
{{ toYaml . }}
{{- end }}
env:
{{- include "tollgate.environment" . }}
{{- with .own.extraEnvFrom }}
envFrom:
{{ toYaml . }}
{{- end }}
ports:
- name: {{ include "tollgate.httpPortName" . }}
  containerPort: {{ include "tollgate.httpPort" . }}
{{- range fromJsonArray (include "tollgate.ports" .) }}
- name: {{ .name }}
  containerPort: {{ .port }}
{{- end }}
{{- include "tollgate.probes" . }}
{{- if and (ne .component "sidecar") .own.preStopSeconds }}
lifecycle:
  preStop:
    sleep:
      seconds: {{ int .own.preStopSeconds }}
{{- end }}
securityContext:
  {{- toYaml .own.securityContext | nindent 2 }}
resources:
  {{- toYaml .own.resources | nindent 2 }}
volumeMounts:
{{- range fromYamlArray (include "tollgate.volumes" .) }}
- name: {{ .name }}
  mountPath: {{ ternary "/run/tollgate" (.name | replace "tollgate-" "/etc/tollgate/") (eq .name "tollgate-run") }}
  {{- if ne .name "tollgate-run" }}
  readOnly: true
  {{- end }}
{{- end }}
{{- if and (ne .component "sidecar") (include "tollgate.disk" .) }}
- name: data
  mountPath: /var/lib/tollgate
{{- end }}
{{- with .own.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* A gate's name is that of its pod, unless the configuration has another. */}}
{{- define "tollgate.environment" }}
{{- if not (dig "gate" "name" "" .own.config) }}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: POD_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: TOLLGATE__GATE__NAME
  value: $(POD_NAME).$(POD_NAMESPACE)
{{- end }}
{{- if ne .own.store "hub" }}
# For `kubectl exec`: who may do that may administer.
- name: TOLLGATE_ADMIN
  value: unix:/run/tollgate/admin.sock
{{- end }}
{{- with .own.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "tollgate.httpPortName" -}}
{{ ternary "tollgate-http" "http" (eq .component "sidecar") }}
{{- end }}

{{/*
Over HTTP: the kubelet's gRPC probes have no TLS, and what gates listen on with gRPC has. A gate that is not ready is
not restarted, since that would not help; one that does not start in time is. What stands behind a sidecar in its
pod waits until that is ready.
*/}}
{{- define "tollgate.probes" }}
{{- $ready := dict "httpGet" (dict "path" "/readyz" "port" (include "tollgate.httpPortName" .)) }}
{{- $alive := dict "httpGet" (dict "path" "/healthz" "port" (include "tollgate.httpPortName" .)) }}
{{- $first := ternary $ready $alive (eq .component "sidecar") }}
startupProbe:
  {{- mergeOverwrite (dict "periodSeconds" 1 "failureThreshold" 120) (deepCopy $first) .own.probes.startup | toYaml | nindent 2 }}
readinessProbe:
  {{- mergeOverwrite (dict "periodSeconds" 5 "failureThreshold" 2) (deepCopy $ready) .own.probes.readiness | toYaml | nindent 2 }}
livenessProbe:
  {{- mergeOverwrite (dict "periodSeconds" 10 "timeoutSeconds" 5 "failureThreshold" 6) (deepCopy $alive) .own.probes.liveness | toYaml | nindent 2 }}
{{- end }}

{{/* Each is mounted by its name: `tollgate-keys` at /etc/tollgate/keys. What is secret can be read by the pod's group alone. */}}
{{- define "tollgate.volumes" -}}
- name: tollgate-config
  configMap:
    name: {{ .own.existingConfigMap | default (include "tollgate.component" .) }}
{{- range $folder := list "keys" "policies" "catalog" }}
{{- $files := get $.Values $folder }}
{{- if include "tollgate.hasFiles" $files }}
- name: tollgate-{{ $folder }}
  projected:
    sources:
    {{- if $files.files }}
    - configMap:
        name: {{ include "tollgate.fullname" $ }}-{{ $folder }}
        items:
        {{- range $name, $_ := $files.files }}
        - {key: {{ include "tollgate.key" $name }}, path: {{ $name }}}
        {{- end }}
    {{- end }}
    {{- with $files.sources }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}
{{- end }}
{{- with include "tollgate.certificate" . }}
- name: tollgate-tls
  secret:
    secretName: {{ . }}
    defaultMode: 0440
{{- end }}
{{- with .own.administration.existingSecret }}
- name: tollgate-administration
  secret:
    secretName: {{ . }}
    defaultMode: 0440
{{- end }}
{{- if and (eq .own.store "postgres") (or .own.postgres.existingSecret .own.postgres.ca) }}
- name: tollgate-postgres
  projected:
    defaultMode: 0440
    sources:
    {{- with .own.postgres.existingSecret }}
    - secret:
        name: {{ . }}
        items:
        - {key: {{ $.own.postgres.passwordKey }}, path: password}
    {{- end }}
    {{- with .own.postgres.ca }}
    - {{ toYaml . | nindent 6 | trim }}
    {{- end }}
{{- end }}
- name: tollgate-run
  emptyDir: {sizeLimit: 1Mi}
{{- end }}

{{/* Keys of a ConfigMap have no slashes, and files may be in folders. */}}
{{- define "tollgate.key" -}}
{{ . | replace "/" "--" }}
{{- end }}

{{/* OpenShift chooses user and groups, and refuses those of others. */}}
{{- define "tollgate.podSecurityContext" -}}
{{- $context := .own.podSecurityContext }}
{{- if .Capabilities.APIVersions.Has "security.openshift.io/v1" }}
{{- $context = omit $context "runAsUser" "runAsGroup" "fsGroup" }}
{{- end }}
{{- toYaml $context }}
{{- end }}
