{{/* The injector: its pods, what it puts into others, and who asks it. */}}

{{/* "true" where it makes its certificate itself: nobody else does. */}}
{{- define "tollgate.injector.makes" -}}
{{- if not (include "tollgate.certificate" .) }}true{{ end }}
{{- end }}

{{/* What it may write, each with a name of its own. Of the whole cluster, so the namespace is in the name. */}}
{{- define "tollgate.injector.kept" -}}
{{ include "tollgate.component" . }}-tls
{{- end }}
{{- define "tollgate.injector.hook" -}}
{{ include "tollgate.component" . }}.{{ .Release.Namespace }}
{{- end }}

{{/* What pods get: the same container, volumes and socket that a chart includes. Read again when it changes. */}}
{{- define "tollgate.injector.template" -}}
{{- with .scopes.sidecar -}}
container:
  {{- include "tollgate.container" . | nindent 2 }}
  restartPolicy: Always
volumes:
{{ include "tollgate.volumes" . }}
{{- with .own.extraVolumes }}
{{ toYaml . }}
{{- end }}
mounts:
{{ include "tollgate.sidecar.socket" . }}
{{- with (include "tollgate.podSecurityContext" . | fromYaml).fsGroup }}
fsGroup: {{ int . }}
{{- end }}
{{- end }}
{{- end }}

{{- define "tollgate.injector.configMap" -}}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ include "tollgate.component" . }}
  labels:
    {{- include "tollgate.labels" . | nindent 4 }}
data:
  template.yaml: |
    {{- /* Read and written anew: `0440` is octal to Helm, and not to everybody. */}}
    {{- include "tollgate.injector.template" . | fromYaml | toYaml | nindent 4 }}
{{- end }}

{{- define "tollgate.injector.container" -}}
name: tollgate
image: {{ include "tollgate.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args:
- injector
- --listen={{ .own.listenAddress }}:9443
- --tls-certificate=/etc/tollgate/tls/tls.crt
- --tls-key=/etc/tollgate/tls/tls.key
- --template=/etc/tollgate/injector/template.yaml
{{- if include "tollgate.injector.makes" . }}
- --secret={{ include "tollgate.injector.kept" . }}
- --webhook={{ include "tollgate.injector.hook" . }}
- --dns-name={{ include "tollgate.component" . }}.{{ .Release.Namespace }}.svc
{{- end }}
ports:
- name: webhook
  containerPort: 9443
{{- $alive := dict "httpGet" (dict "path" "/healthz" "port" "webhook" "scheme" "HTTPS") }}
{{- range $probe, $own := dict "startup" (dict "periodSeconds" 1 "failureThreshold" 60) "readiness" (dict "periodSeconds" 5 "failureThreshold" 2) "liveness" (dict "periodSeconds" 10 "timeoutSeconds" 5 "failureThreshold" 6) }}
{{ $probe }}Probe:
  {{- mergeOverwrite $own (deepCopy $alive) (get $.own.probes $probe) | toYaml | nindent 2 }}
{{- end }}
{{- with .own.preStopSeconds }}
lifecycle:
  preStop:
    sleep:
      seconds: {{ int . }}
{{- end }}
securityContext:
  {{- toYaml .own.securityContext | nindent 2 }}
resources:
  {{- toYaml .own.resources | nindent 2 }}
volumeMounts:
- name: injector
  mountPath: /etc/tollgate/injector
  readOnly: true
- name: tls
  mountPath: /etc/tollgate/tls
  {{- if not (include "tollgate.injector.makes" .) }}
  readOnly: true
  {{- end }}
{{- end }}

{{- define "tollgate.injector.volumes" -}}
- name: injector
  configMap:
    name: {{ include "tollgate.component" . }}
- name: tls
  {{- if include "tollgate.injector.makes" . }}
  emptyDir: {medium: Memory, sizeLimit: 1Mi}
  {{- else }}
  secret:
    secretName: {{ include "tollgate.certificate" . }}
    defaultMode: 0440
  {{- end }}
{{- end }}

{{/*
Where it makes its certificate itself: what it keeps that in, and its right to write there and nowhere else. Both are empty
here, and what is written into them is not Helm's: it stays through upgrades, and goes with the release.
*/}}
{{- define "tollgate.injector.rights" -}}
{{- if include "tollgate.injector.makes" . }}
{{- $account := printf "[{kind: ServiceAccount, name: %s, namespace: %s}]" (include "tollgate.serviceAccount" .) .Release.Namespace }}
{{- $kept := include "tollgate.injector.kept" . }}
{{- $hook := include "tollgate.injector.hook" . }}
{{- $labels := include "tollgate.labels" . | nindent 4 }}
apiVersion: v1
kind: Secret
metadata:
  name: {{ $kept }}
  labels:
    {{- $labels }}
---
apiVersion: coordination.k8s.io/v1
kind: Lease
metadata:
  name: {{ $kept }}
  labels:
    {{- $labels }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ include "tollgate.component" . }}
  labels:
    {{- $labels }}
rules:
- apiGroups: [""]
  resources: [secrets]
  resourceNames: [{{ $kept }}]
  verbs: [get, update]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [{{ $kept }}]
  verbs: [get, patch]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ include "tollgate.component" . }}
  labels:
    {{- $labels }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: {{ include "tollgate.component" . }}}
subjects: {{ $account }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: {{ $hook }}
  labels:
    {{- $labels }}
rules:
- apiGroups: [admissionregistration.k8s.io]
  resources: [mutatingwebhookconfigurations]
  resourceNames: [{{ $hook }}]
  verbs: [get, patch]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: {{ $hook }}
  labels:
    {{- $labels }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {{ $hook }}}
subjects: {{ $account }}
{{- end }}
{{- end }}

{{- define "tollgate.injector.service" -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ include "tollgate.component" . }}
  labels:
    {{- include "tollgate.labels" . | nindent 4 }}
spec:
  selector:
    {{- include "tollgate.selector" . | nindent 4 }}
  ports:
  - name: webhook
    port: 443
    targetPort: webhook
    appProtocol: https
{{- end }}

{{/*
Pods of a namespace that asks for it are not made while nobody answers: one without its gate would be let go unseen. Not
so pods of the system, and the injector's own.
*/}}
{{- define "tollgate.injector.webhook" -}}
{{- $annotations := deepCopy .own.webhookAnnotations }}
{{- if and .Values.certManager.issuerRef (not .own.tls.existingSecret) }}
{{- $_ := set $annotations "cert-manager.io/inject-ca-from" (printf "%s/%s" .Release.Namespace (include "tollgate.component" .)) }}
{{- end -}}
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
metadata:
  name: {{ include "tollgate.injector.hook" . }}
  labels:
    {{- include "tollgate.labels" . | nindent 4 }}
  {{- with $annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
webhooks:
- name: inject.tollgate.dev
  admissionReviewVersions: [v1]
  clientConfig:
    service: {name: {{ include "tollgate.component" . }}, namespace: {{ .Release.Namespace }}, path: /inject, port: 443}
    {{- with .own.caBundle }}
    caBundle: {{ b64enc . }}
    {{- end }}
  rules:
  - apiGroups: [""]
    apiVersions: [v1]
    operations: [CREATE]
    resources: [pods]
    scope: Namespaced
  namespaceSelector:
    matchExpressions:
    - {key: tollgate.dev/inject, operator: In, values: ["true"]}
    - {key: kubernetes.io/metadata.name, operator: NotIn, values: [kube-system, {{ .Release.Namespace }}]}
  objectSelector:
    matchExpressions:
    - {key: tollgate.dev/inject, operator: NotIn, values: ["false"]}
  failurePolicy: Fail
  reinvocationPolicy: IfNeeded
  sideEffects: None
  timeoutSeconds: 5
{{- end }}
