{{/* What follows from a component's values: what it is, whom it knows, how it is reached. */}}

{{/*
Puts a scope for each component into a dict: takes the root and the dict. A scope is the root, with `component` as its
name, `own` as its values over `defaults`, and `scopes` for the others. Nearly every template takes one.
*/}}
{{- define "tollgate.scopes" -}}
{{- $root := index . 0 }}
{{- $scopes := index . 1 }}
{{- range $component := list "hub" "gate" "sidecar" "injector" }}
{{- $own := mergeOverwrite (deepCopy $root.Values.defaults) (deepCopy (get $root.Values $component)) }}
{{- if eq $component "gate" }}{{ $_ := set $own "serves" (list "decisions") }}{{ end }}
{{- if eq $component "sidecar" }}{{ $own = mergeOverwrite $own (dict "store" "hub" "serves" list) }}{{ end }}
{{- if eq $component "injector" }}
{{- /* No gate: it has neither state nor configuration, its load is slight, and it always has a certificate of its own. */}}
{{- $_ := set $own "store" "hub" }}
{{- $_ := set $own "serves" list }}
{{- range list "persistence" "autoscaling" }}{{ $_ := set $own . (dict "enabled" false) }}{{ end }}
{{- range list "hubs" "initContainers" "extraContainers" "extraVolumes" }}{{ $_ := set $own . list }}{{ end }}
{{- $_ := set $own "administration" dict }}
{{- $_ := set $own "config" (dict "shutdown" (dict "notice" "0s" "grace" "10s")) }}
{{- $_ := set $own "tls" (dict "existingSecret" $root.Values.injector.tls.existingSecret "names" list "insecure" false) }}
{{- end }}
{{- $_ := set $scopes $component (merge (dict "component" $component "own" $own "scopes" $scopes) $root) }}
{{- end }}
{{- end }}

{{/* Who has a state of its own keeps its name: gates list the pods of a hub one by one, to go on to another when one is lost. */}}
{{- define "tollgate.kind" -}}
{{ ternary "Deployment" "StatefulSet" (eq .own.store "hub") }}
{{- end }}

{{- define "tollgate.replicas" -}}
{{- if kindIs "invalid" .own.replicas }}
{{- ternary 1 2 (eq .own.store "embedded") }}
{{- else }}
{{- int .own.replicas }}
{{- end }}
{{- end }}

{{/* "true" where there is a disk. */}}
{{- define "tollgate.disk" -}}
{{- if or (eq .own.store "embedded") .own.persistence.enabled }}true{{ end }}
{{- end }}

{{/* "true" where somebody may administer over TCP. */}}
{{- define "tollgate.administered" -}}
{{- if or .own.administration.operators .own.administration.existingSecret }}true{{ end }}
{{- end }}

{{/* The open ports but that of health and metrics, as a JSON list of {name, port}. */}}
{{- define "tollgate.ports" -}}
{{- $ports := list }}
{{- if has "decisions" .own.serves }}{{ $ports = append $ports (dict "name" "decisions" "port" 9191) }}{{ end }}
{{- if include "tollgate.administered" . }}{{ $ports = append $ports (dict "name" "admin" "port" 9192) }}{{ end }}
{{- if has "hub" .own.serves }}{{ $ports = append $ports (dict "name" "hub" "port" 9194) }}{{ end }}
{{- if eq .component "injector" }}{{ $ports = append $ports (dict "name" "webhook" "port" 9443) }}{{ end }}
{{- toJson $ports }}
{{- end }}

{{/* The same for a Service. */}}
{{- define "tollgate.servicePorts" -}}
{{- range fromJsonArray (include "tollgate.ports" .) }}
- name: {{ .name }}
  port: {{ .port }}
  targetPort: {{ .name }}
  appProtocol: {{ ternary "kubernetes.io/h2c" "https" $.own.tls.insecure }}
{{- end }}
{{- end }}

{{/* Addresses of hubs, as a JSON list. */}}
{{- define "tollgate.hubs" -}}
{{- $hubs := .own.hubs }}
{{- $hub := .scopes.hub }}
{{- if and (not $hubs) $hub.own.enabled (has "hub" $hub.own.serves) }}
{{- $name := include "tollgate.component" $hub }}
{{- $scheme := ternary "http" "https" $hub.own.tls.insecure }}
{{- $pods := include "tollgate.replicas" $hub | int }}
{{- if $hub.own.autoscaling.enabled }}{{ $pods = int $hub.own.autoscaling.minReplicas }}{{ end }}
{{- range until $pods }}
{{- $hubs = append $hubs (printf "%s://%s-%d.%s-pods.%s.svc:9194" $scheme $name . $name $.Release.Namespace) }}
{{- end }}
{{- end }}
{{- toJson $hubs }}
{{- end }}

{{- define "tollgate.identity" -}}
{{- .own.tls.identity | default (printf "%s.%s.svc" (include "tollgate.component" .) .Release.Namespace) }}
{{- end }}

{{/* "true" where it shows a certificate, to callers or to hubs. */}}
{{- define "tollgate.certified" -}}
{{- $listens := and (ne (include "tollgate.ports" .) "[]") (not .own.tls.insecure) }}
{{- $calls := and (eq .own.store "hub") (include "tollgate.hubs" . | contains "https:") }}
{{- if or $listens $calls }}true{{ end }}
{{- end }}

{{/* Name of the Secret with its certificate; empty: there is none. */}}
{{- define "tollgate.certificate" -}}
{{- if include "tollgate.certified" . }}
{{- .own.tls.existingSecret | default (ternary (printf "%s-tls" (include "tollgate.component" .)) "" (not (empty .Values.certManager.issuerRef))) }}
{{- end }}
{{- end }}
