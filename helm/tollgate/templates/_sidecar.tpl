{{/*
For a chart that has this one as a dependency, in the pod of an enforcement point. Each takes `.Subcharts.tollgate`;
docs/kubernetes.md shows where each belongs.
*/}}

{{/* The container, for the beginning of `initContainers`: it starts before what comes after it, and stops after that. */}}
{{- define "tollgate.sidecar" -}}
{{- $scopes := dict }}
{{- include "tollgate.scopes" (list . $scopes) }}
{{- include "tollgate.refusals" $scopes }}
{{- if not $scopes.sidecar.own.enabled }}{{ fail "sidecar.enabled: is false; `tollgate.sidecar` needs what comes with it" }}{{ end -}}
- {{ include "tollgate.container" $scopes.sidecar | nindent 2 | trim }}
  restartPolicy: Always
{{- end }}

{{/* For `volumes`. */}}
{{- define "tollgate.sidecar.volumes" -}}
{{- $scopes := dict }}
{{- include "tollgate.scopes" (list . $scopes) }}
{{- include "tollgate.volumes" $scopes.sidecar }}
{{- with $scopes.sidecar.own.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* For `volumeMounts` of who asks: the socket is /run/tollgate/gate.sock. */}}
{{- define "tollgate.sidecar.socket" -}}
- name: tollgate-run
  mountPath: /run/tollgate
{{- end }}

{{/* For the pod's annotations: a new configuration means new pods. */}}
{{- define "tollgate.sidecar.annotations" -}}
{{- $scopes := dict }}
{{- include "tollgate.scopes" (list . $scopes) }}
{{- include "tollgate.podAnnotations" $scopes.sidecar }}
{{- end }}
