{{/* The name of the gateway's objects. */}}
{{- define "finetune-operator.gatewayName" -}}
{{- printf "%s-gateway" (include "finetune-operator.fullname" . | trunc 55 | trimSuffix "-") }}
{{- end }}

{{/*
The gateway's pods have a name of their own in their labels: the selector of the operator's
Deployment, which cannot change, and those of its monitors and policies match on name and instance.
*/}}
{{- define "finetune-operator.gatewaySelectorLabels" -}}
app.kubernetes.io/name: {{ printf "%s-gateway" (include "finetune-operator.name" . | trunc 55 | trimSuffix "-") }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "finetune-operator.gatewayLabels" -}}
{{ include "finetune-operator.gatewaySelectorLabels" . }}
{{ include "finetune-operator.releaseLabels" . }}
{{- end }}

{{/* The name of the objects of the completion server. */}}
{{- define "finetune-operator.completionsName" -}}
{{- printf "%s-completions" (include "finetune-operator.fullname" . | trunc 51 | trimSuffix "-") }}
{{- end }}

{{- define "finetune-operator.completionsSelectorLabels" -}}
app.kubernetes.io/name: {{ printf "%s-completions" (include "finetune-operator.name" . | trunc 51 | trimSuffix "-") }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "finetune-operator.completionsLabels" -}}
{{ include "finetune-operator.completionsSelectorLabels" . }}
{{ include "finetune-operator.releaseLabels" . }}
app.kubernetes.io/component: completions
{{- end }}

{{/* The rule of a NetworkPolicy for the port of metrics and probes; empty if no peer may use it. */}}
{{- define "finetune-operator.operationsIngress" -}}
{{- $metrics := .Values.metrics.networkPolicy }}
{{- if not $metrics.enabled }}
- ports:
    - port: operations
{{- else if $metrics.from }}
- from:
    {{- toYaml $metrics.from | nindent 4 }}
  ports:
    - port: operations
{{- end }}
{{- end }}

{{/* The Secret that the gateway and the completion server share. */}}
{{- define "finetune-operator.completionsSecretName" -}}
{{- default (include "finetune-operator.completionsName" .) .Values.gateway.server.secretName }}
{{- end }}

{{- define "finetune-operator.gatewayServiceAccountName" -}}
{{- $account := .Values.gateway.serviceAccount }}
{{- if $account.create }}
{{- default (include "finetune-operator.gatewayName" .) $account.name }}
{{- else }}
{{- required "gateway.serviceAccount.create is false, so gateway.serviceAccount.name is required" $account.name }}
{{- end }}
{{- end }}

{{/* Whether the gateway's own server speaks HTTPS: "https" or "http". */}}
{{- define "finetune-operator.gatewayScheme" -}}
{{- ternary "https" "http" (not (empty .Values.gateway.tls.secretName)) }}
{{- end }}

{{/* Where the files of the namespace are. */}}
{{- define "finetune-operator.gatewayFiles" -}}
{{- if .Values.gateway.files.prefix }}
{{- .Values.gateway.files.prefix | trimSuffix "/" }}
{{- else }}
{{- printf "%s/uploads" (required "gateway.files.prefix is empty, and so is output, below which the uploaded files would be. Set one of them to s3://BUCKET/PREFIX" .Values.output | trimSuffix "/") }}
{{- end }}
{{- end }}

{{/* The volume sources of the API keys of backends, in JSON: a file for each base model. */}}
{{- define "finetune-operator.gatewayBackendKeys" -}}
{{- $sources := list }}
{{- range .Values.gateway.backends }}
{{- if .keySecret }}
{{- $item := dict "key" .keySecret.key "path" .base }}
{{- $sources = append $sources (dict "secret" (dict "name" .keySecret.name "items" (list $item) "optional" true)) }}
{{- end }}
{{- end }}
{{- if $sources }}
{{- toJson $sources }}
{{- end }}
{{- end }}

{{/* Refuses values that would give the gateway, or a holder of a key, more than intended. */}}
{{- define "finetune-operator.gatewayCheck" -}}
{{- $gateway := .Values.gateway }}
{{- $own := include "finetune-operator.gatewayServiceAccountName" . }}
{{- $operator := include "finetune-operator.serviceAccountName" . }}
{{- $others := dict $operator "the operator" .Values.pods.serviceAccount.name "the training pods" "default" "every pod that names none" }}
{{- with get $others $own }}
{{- fail (printf "gateway.serviceAccount.name is %s, the ServiceAccount of %s. Choose another name: the gateway may impersonate users" $own .) }}
{{- end }}
{{- range $gateway.keys.serviceAccounts }}
{{- $whose := ternary "the gateway itself" (get $others .) (eq . $own) }}
{{- with $whose }}
{{- fail (printf "gateway.keys.serviceAccounts contains a ServiceAccount of %s. Remove it, and create ServiceAccounts for users: an API key has all permissions of its account" .) }}
{{- end }}
{{- end }}
{{- $byIngress := and $gateway.ingress.enabled $gateway.ingress.tlsSecretName }}
{{- if not (or $gateway.tls.secretName $byIngress $gateway.allowPlainHttp) }}
{{- fail "The gateway would receive API keys over plain HTTP, where they can be read on their way. Set gateway.tls.secretName, or gateway.ingress.enabled with gateway.ingress.tlsSecretName. On a network that you trust, set gateway.allowPlainHttp=true" }}
{{- end }}
{{- if and $gateway.server.enabled (not .Values.output) }}
{{- fail "gateway.server.enabled requires output: the server completes with the models below it. Set output to s3://BUCKET/PREFIX" }}
{{- end }}
{{- if and $gateway.ingress.enabled (not $gateway.ingress.host) }}
{{- fail "gateway.ingress.enabled requires gateway.ingress.host. Without a host, the Ingress would serve every name of the controller" }}
{{- end }}
{{- end }}

{{/*
The gateway's settings file. It is written key by key, as that of the operator, because Helm stores
numbers as floats.
*/}}
{{- define "finetune-operator.gatewaySettings" -}}
{{- $root := . }}
{{- with .Values.gateway -}}
namespace: {{ $root.Release.Namespace | quote }}
organization: {{ $root.Values.organization | quote }}
output: {{ $root.Values.output | quote }}
files: {{ include "finetune-operator.gatewayFiles" $root | quote }}
filesQuotaBytes: {{ .files.quotaBytes | int64 }}
{{ include "finetune-operator.dataLimits" $root }}
{{ include "finetune-operator.catalog" (list $root "gateway") }}
{{- if .keys.serviceAccounts }}
keys: /etc/finetune-gateway-keys
{{- end }}
backends:
{{- range .backends }}
  - base: {{ .base | quote }}
    url: {{ .url | quote }}
    {{- with .name }}
    name: {{ . | quote }}
    {{- end }}
    {{- with .supports }}
    supports: {{ toJson . }}
    {{- end }}
    {{- if .keySecret }}
    keyFile: /etc/finetune-gateway-backends/{{ .base }}
    {{- end }}
{{- else }} []
{{- end }}
{{- if .server.enabled }}
server:
  url: http://{{ include "finetune-operator.completionsName" $root }}.{{ $root.Release.Namespace }}.svc:8000/v1
  secretFile: /etc/finetune-gateway-server/token
{{- end }}
{{- if dig "enabled" false (default dict $root.Values.serving) }}
servesModels: true
{{- end }}
holdSeconds: {{ .holdSeconds | toJson }}
deletesFiles: {{ .deletesFiles }}
allowPlainHttp: {{ empty .tls.secretName }}
{{- end }}
{{- end }}

{{/*
The environment: named keys of the Secret, as pods get them, and the way to the store. A variable of
the chart replaces the key of the same name.
*/}}
{{- define "finetune-operator.gatewayEnvironment" -}}
{{- $pods := .Values.pods }}
{{- $secret := default .Values.secretName .Values.gateway.secretName }}
{{- $variables := dict "FINETUNE_ALLOWED_ENDPOINTS" (default list $pods.allowedEndpoints | toJson) }}
{{- with $pods.certificates }}
{{- if or .configMap .secret }}
{{- $_ := set $variables "FINETUNE_CA_BUNDLE" "/etc/finetune/certificates/ca.crt" }}
{{- end }}
{{- end }}
{{- with $pods.proxy }}
{{- with .https }}{{ $_ := set $variables "HTTPS_PROXY" . }}{{ end }}
{{- with .http }}{{ $_ := set $variables "HTTP_PROXY" . }}{{ end }}
{{- if or .https .http }}
{{- $direct := list "localhost" "127.0.0.1" "::1" "[::1]" ".svc" ".cluster.local" "169.254.169.254" "169.254.170.2" "169.254.170.23" "fd00:ec2::254" "[fd00:ec2::254]" "fd00:ec2::23" "[fd00:ec2::23]" }}
{{- $_ := set $variables "NO_PROXY" (concat $direct (default list .exceptions) | uniq | join ",") }}
{{- end }}
{{- end }}
{{- with $pods.addressingStyle }}{{ $_ := set $variables "FINETUNE_S3_ADDRESSING_STYLE" . }}{{ end }}
{{- range .Values.gateway.env }}{{ $_ := set $variables .name (default "" .value) }}{{ end }}
{{- range $name, $value := $variables }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- $keys := list "AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY" "AWS_SESSION_TOKEN" "AWS_REGION" "AWS_DEFAULT_REGION" "AWS_ENDPOINT_URL" "AWS_ENDPOINT_URL_S3" "AWS_S3_ADDRESSING_STYLE" "AWS_CA_BUNDLE" }}
{{- range concat $keys (default list $pods.secretKeys) | uniq }}
{{- if not (hasKey $variables .) }}
- name: {{ . }}
  valueFrom:
    secretKeyRef: {name: {{ $secret | quote }}, key: {{ . }}, optional: true}
{{- end }}
{{- end }}
{{- end }}
