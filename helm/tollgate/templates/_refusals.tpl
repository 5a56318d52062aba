{{/* Values that cannot work, each with what would be right; all are told at once. Takes the scopes. */}}

{{- define "tollgate.refusals" -}}
{{- $wrong := list }}
{{- if not (or .hub.own.enabled .gate.own.enabled .sidecar.own.enabled .injector.own.enabled) }}
{{- $wrong = append $wrong "hub.enabled: is false, as those of gate and sidecar; nothing would be installed" }}
{{- end }}
{{- range $component, $scope := omit . "injector" }}
{{- /* The injector puts what the sidecar is into pods. */}}
{{- if or $scope.own.enabled (and (eq $component "sidecar") $.injector.own.enabled) }}
{{- range splitList "\n" (include "tollgate.wrong" $scope | trim) }}
{{- with trim . }}{{ $wrong = append $wrong . }}{{ end }}
{{- end }}
{{- end }}
{{- end }}
{{- with .injector }}
{{- if and .own.enabled .own.tls.existingSecret (not (or .own.caBundle .own.webhookAnnotations)) }}
{{- $wrong = append $wrong "injector.caBundle: is empty; the API server needs who vouches for the certificate, such as --set-file injector.caBundle=ca.crt, or `injector.webhookAnnotations` by which somebody fills it in" }}
{{- end }}
{{- if and .own.enabled .own.caBundle (not .own.tls.existingSecret) }}
{{- $wrong = append $wrong "injector.caBundle: vouches for a certificate that is not there; name its Secret in `injector.tls.existingSecret`, or leave both empty" }}
{{- end }}
{{- end }}
{{- with $wrong }}{{ fail (printf "these values cannot work:\n\n  %s\n" (join "\n  " .)) }}{{ end }}
{{- end }}

{{/* What is wrong with a component, line by line. */}}
{{- define "tollgate.wrong" -}}
{{- $own := .own }}
{{- $at := .component }}
{{- if not (or (include "tollgate.hasFiles" .Values.keys) (dig "licenses" "keys" "" $own.config) $own.existingConfigMap) }}
keys: has neither `files` nor `sources`; a gate needs the key set of an issuer, such as --set-file 'keys.files.issuer\.json=issuer.json'
{{- end }}
{{- if and (eq $own.store "hub") (eq (include "tollgate.hubs" .) "[]") }}
{{ $at }}.hubs: is empty, and this release has no hub; name addresses such as `https://HOST:9194`
{{- end }}
{{- if and (eq $own.store "postgres") (not $own.postgres.url) }}
{{ $at }}.postgres.url: is empty; `store: postgres` needs it, such as `postgres://tollgate@db/tollgate`
{{- end }}
{{- if and (include "tollgate.certified" .) (not (include "tollgate.certificate" .)) }}
{{ $at }}.tls.existingSecret: is empty; name a Secret with `tls.crt`, `tls.key` and `ca.crt`, or set `certManager.issuerRef`{{ if not $own.tls.insecure }}, or `{{ $at }}.tls.insecure: true` if something else protects it{{ end }}
{{- end }}
{{- if and (eq .component "hub") (has "hub" $own.serves) (not $own.tls.insecure) (not $own.existingConfigMap) (eq (include "tollgate.members" .) "[]") }}
hub.members: is empty, so nobody would be served; name the certificates of gates, such as `{subject: spiffe://example.org/sidecar, scope: gate}`, or enable `gate`
{{- end }}
{{- if and $own.members $own.tls.insecure }}
{{ $at }}.members: names certificates, and `{{ $at }}.tls.insecure` asks for none
{{- end }}
{{- if and $own.administration.operators (or $own.tls.insecure (not $own.tls.clientCertificates)) }}
{{ $at }}.administration.operators: names certificates, and none is asked for; see `{{ $at }}.tls`
{{- end }}
{{- if ne .component "sidecar" }}
{{- if and (eq $own.store "embedded") (or $own.autoscaling.enabled (gt (include "tollgate.replicas" . | int) 1)) }}
{{ $at }}.store: `embedded` is for one pod; for more, set `postgres`
{{- end }}
{{- if and (eq $own.store "hub") $own.persistence.enabled }}
{{ $at }}.persistence.enabled: needs a state of its own; this one has `store: hub`, and hands its records to the hub
{{- end }}
{{- $stop := include "tollgate.stopSeconds" . | int }}
{{- with $own.terminationGracePeriodSeconds }}
{{- if lt (int .) $stop }}
{{ $at }}.terminationGracePeriodSeconds: {{ int . }} is less than the {{ $stop }} that stopping may take; raise it, or lower `{{ $at }}.preStopSeconds` or `{{ $at }}.config.shutdown`
{{- end }}
{{- end }}
{{- $budget := $own.podDisruptionBudget }}
{{- if and $budget.enabled (eq (kindIs "invalid" $budget.maxUnavailable) (kindIs "invalid" $budget.minAvailable)) }}
{{ $at }}.podDisruptionBudget: needs one of `maxUnavailable` and `minAvailable`; the other is null
{{- end }}
{{- end }}
{{- end }}
