{{/* tollgate.yaml of a component: what the chart knows, and `config` over it. */}}

{{- define "tollgate.config" -}}
{{- $listeners := dict "http" (dict "tcp" (printf "%s:%d" .own.listenAddress (include "tollgate.httpPort" . | int)) "insecure" true) }}
{{- range fromJsonArray (include "tollgate.ports" .) }}
{{- $listener := dict "tcp" (printf "%s:%d" $.own.listenAddress (int .port)) }}
{{- if $.own.tls.insecure }}
{{- $_ := set $listener "insecure" true }}
{{- else }}
{{- $tls := dict "certificate" "/etc/tollgate/tls/tls.crt" "key" "/etc/tollgate/tls/tls.key" }}
{{- if or (eq .name "hub") $.own.tls.clientCertificates }}{{ $_ := set $tls "client_ca" "/etc/tollgate/tls/ca.crt" }}{{ end }}
{{- $_ := set $listener "tls" $tls }}
{{- end }}
{{- $_ := set $listeners (ternary "administration" .name (eq .name "admin")) $listener }}
{{- end }}
{{- if not (has "decisions" .own.serves) }}
{{- /* For who is in the pod. */}}
{{- $_ := set $listeners "decisions" (dict "tcp" nil "unix" "/run/tollgate/gate.sock") }}
{{- end }}
{{- if ne .own.store "hub" }}
{{- $administration := get $listeners "administration" | default (dict "tcp" nil) }}
{{- $_ := set $administration "unix" "/run/tollgate/admin.sock" }}
{{- with .own.administration.operators }}{{ $_ := set $administration "operators" . }}{{ end }}
{{- with .own.administration.existingSecret }}{{ $_ := set $administration "tokens" "/etc/tollgate/administration/tokens.yaml" }}{{ end }}
{{- $_ := set $listeners "administration" $administration }}
{{- end }}
{{- with fromJsonArray (include "tollgate.members" .) }}{{ $_ := set $listeners.hub "members" . }}{{ end }}
{{- $config := dict "listeners" $listeners "licenses" (dict "keys" "/etc/tollgate/keys") "state" (include "tollgate.state" . | fromYaml) }}
{{- if eq .own.store "hub" }}{{ $_ := set $config "audit" (dict "stdout" false "hub" true) }}{{ end }}
{{- if eq .component "sidecar" }}
{{- /* It is the last to stop in its pod: nobody is left to notice or to wait for. */}}
{{- $_ := set $config "shutdown" (dict "notice" "0s" "grace" "5s") }}
{{- end }}
{{- $policies := dict }}
{{- if include "tollgate.hasFiles" .Values.policies }}{{ $_ := set $policies "directory" "/etc/tollgate/policies" }}{{ end }}
{{- if include "tollgate.hasFiles" .Values.catalog }}{{ $_ := set $policies "catalog" "/etc/tollgate/catalog/catalog.json" }}{{ end }}
{{- with $policies }}{{ $_ := set $config "policies" . }}{{ end }}
{{- toYaml (mergeOverwrite $config (deepCopy .own.config)) }}
{{- end }}

{{- define "tollgate.httpPort" -}}
{{ .own.httpPort | default 9193 }}
{{- end }}

{{- define "tollgate.hasFiles" -}}
{{- if or .files .sources }}true{{ end }}
{{- end }}

{{/* Who may use the hub, as a JSON list: those that are named, and the gate of this release. */}}
{{- define "tollgate.members" -}}
{{- $members := .own.members | default list }}
{{- $gate := .scopes.gate }}
{{- if and (eq .component "hub") $gate.own.enabled (eq $gate.own.store "hub") (not $gate.own.hubs) }}
{{- $members = append $members (dict "subject" (include "tollgate.identity" $gate) "scope" "gate") }}
{{- end }}
{{- ternary (toJson $members) "[]" (and (has "hub" .own.serves) (not .own.tls.insecure)) }}
{{- end }}

{{- define "tollgate.state" -}}
store: {{ .own.store }}
{{- if eq .own.store "embedded" }}
embedded:
  path: /var/lib/tollgate/state.redb
{{- else if eq .own.store "postgres" }}
postgres:
  url: {{ .own.postgres.url | quote }}
  {{- if .own.postgres.existingSecret }}
  password_file: /etc/tollgate/postgres/password
  {{- end }}
  {{- if .own.postgres.ca }}
  ca: /etc/tollgate/postgres/ca.crt
  {{- end }}
{{- else }}
{{- $hubs := fromJsonArray (include "tollgate.hubs" .) }}
hub:
  addresses: {{ toJson $hubs }}
  {{- if include "tollgate.hubs" . | contains "https:" }}
  ca: /etc/tollgate/tls/ca.crt
  certificate: /etc/tollgate/tls/tls.crt
  key: /etc/tollgate/tls/tls.key
  {{- end }}
  {{- if include "tollgate.hubs" . | contains "http:" }}
  insecure: true
  {{- end }}
{{- end }}
{{- end }}

{{/* A duration of the configuration in whole seconds, rounded up. */}}
{{- define "tollgate.seconds" -}}
{{- if not (regexMatch "^[0-9]+(ms|s|m)$" .text) }}
{{- fail (printf "%s: `%s` is not a duration that the chart can add up; write for example `500ms`, `20s` or `1m`" .key .text) }}
{{- end }}
{{- $number := regexFind "^[0-9]+" .text | int }}
{{- if hasSuffix "ms" .text }}{{ div (add $number 999) 1000 }}
{{- else if hasSuffix "s" .text }}{{ $number }}
{{- else }}{{ mul $number 60 }}
{{- end }}
{{- end }}

{{/*
The longest that stopping takes: as if nothing were, then the notice, then requests within the grace, then quotas go
back (5 s at most) and records are written out (the grace again, at least 5 s), and five seconds to spare.
*/}}
{{- define "tollgate.stopSeconds" -}}
{{- $shutdown := .own.config.shutdown | default dict }}
{{- $key := printf "%s.config.shutdown" .component }}
{{- $notice := include "tollgate.seconds" (dict "key" (printf "%s.notice" $key) "text" ($shutdown.notice | default "2s")) | int }}
{{- $grace := include "tollgate.seconds" (dict "key" (printf "%s.grace" $key) "text" ($shutdown.grace | default "20s")) | int }}
{{- add (int .own.preStopSeconds) $notice $grace 5 (max $grace 5) 5 }}
{{- end }}
