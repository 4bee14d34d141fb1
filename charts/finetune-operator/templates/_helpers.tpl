{{/*
Completes .Values with the defaults of this chart. `helm upgrade --reuse-values` renders the templates
with the values of the chart that is installed, which lack everything that is newer. Each template
calls this first. A key that is set keeps its value, also if it is empty.
*/}}
{{- define "finetune-operator.complete" -}}
{{- include "finetune-operator.completeSection" (list .Values (.Files.Get "files/defaults.json" | fromJson)) }}
{{- end }}

{{- define "finetune-operator.completeSection" -}}
{{- $values := index . 0 }}
{{- $section := index . 1 }}
{{- range $key, $default := $section.values }}
{{- if not (hasKey $values $key) }}
{{- $_ := set $values $key $default }}
{{- end }}
{{- end }}
{{- range $key, $inner := $section.sections }}
{{- if not (kindIs "map" (get $values $key)) }}
{{- $_ := set $values $key dict }}
{{- end }}
{{- include "finetune-operator.completeSection" (list (get $values $key) $inner) }}
{{- end }}
{{- end }}

{{- define "finetune-operator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "finetune-operator.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{/* Name of cluster-scoped objects. Releases with the same name in two namespaces do not collide. */}}
{{- define "finetune-operator.clusterName" -}}
{{- printf "%s-%s" (include "finetune-operator.fullname" .) .Release.Namespace }}
{{- end }}

{{- define "finetune-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ include "finetune-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "finetune-operator.labels" -}}
{{ include "finetune-operator.selectorLabels" . }}
{{ include "finetune-operator.releaseLabels" . }}
{{- end }}

{{- define "finetune-operator.releaseLabels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: finetune-operator
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "finetune-operator.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "finetune-operator.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- required "serviceAccount.create is false, so serviceAccount.name is required" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* Argument: (list $ "operator"). A full reference, or registry/finetune-operator:tag. */}}
{{- define "finetune-operator.image" -}}
{{- $root := index . 0 }}
{{- $image := index . 1 }}
{{- $images := $root.Values.images }}
{{- with index $images $image }}
{{- . }}
{{- else }}
{{- $tag := default $root.Chart.AppVersion $images.tag }}
{{- $name := printf "finetune-%s:%s" $image $tag }}
{{- if $images.registry }}
{{- $name = printf "%s/%s" (trimSuffix "/" $images.registry) $name }}
{{- end }}
{{- $name }}
{{- end }}
{{- end }}

{{/* The base models. Argument: (list $ "operator") or (list $ "gateway"), which alone gets fineTune. */}}
{{- define "finetune-operator.catalog" -}}
{{- $reader := index . 1 }}
models:
{{- range (index . 0).Values.models }}
  - name: {{ .name | quote }}
    uri: {{ .uri | quote }}
    pretrainingLearningRate: {{ .pretrainingLearningRate | toJson }}
    contextLength: {{ .contextLength | int64 }}
    {{- if and (eq $reader "gateway") .fineTune }}
    fineTune: {{ toJson .fineTune }}
    {{- end }}
{{- else }} []
{{- end }}
{{- end }}

{{/* The limits of data files, for the same two. */}}
{{- define "finetune-operator.dataLimits" -}}
{{- with .Values.data -}}
data:
  maxFileBytes: {{ .maxFileBytes | int64 }}
  maxLineBytes: {{ .maxLineBytes | int64 }}
  maxNesting: {{ .maxNesting | int64 }}
{{- end }}
{{- end }}

{{/*
The operator's settings file. It is written key by key, because Helm stores numbers as floats, and
toYaml would write 157286400 as 1.572864e+08.
*/}}
{{- define "finetune-operator.settings" -}}
{{- $root := . }}
{{- with .Values }}
namespace: {{ ternary "" $root.Release.Namespace .clusterWide | quote }}
organization: {{ .organization | quote }}
output: {{ .output | quote }}
secretName: {{ .secretName | quote }}
{{- with .pods.secretKeys }}
secretKeys: {{ toJson . }}
{{- end }}
{{- if kindIs "slice" .pods.requiredSecretKeys }}
requiredSecretKeys: {{ toJson .pods.requiredSecretKeys }}
{{- end }}
{{- with .pods.allowedEndpoints }}
allowedEndpoints: {{ toJson . }}
{{- end }}
{{- if not (kindIs "invalid" .pods.cpuJobDeadlineSeconds) }}
cpuJobDeadlineSeconds: {{ .pods.cpuJobDeadlineSeconds | int64 }}
{{- end }}
serviceAccountName: {{ .pods.serviceAccount.name | quote }}
prepareImage: {{ include "finetune-operator.image" (list $root "prepare") | quote }}
imagePullPolicy: {{ .images.pullPolicy }}
imagePullSecrets:
{{- range .imagePullSecrets }}
  - {{ .name | quote }}
{{- else }} []
{{- end }}
{{ include "finetune-operator.catalog" (list $root "operator") }}
runtimes:
{{- range .runtimes }}
  - name: {{ .name | quote }}
    accelerator: {{ .accelerator }}
    trainerImage: {{ default (include "finetune-operator.image" (list $root "trainer")) .trainerImage | quote }}
    {{- with .gpuMemoryGiB }}
    gpuMemoryGiB: {{ . | toJson }}
    {{- end }}
    env:
    {{- range $name, $value := .env }}
      {{ $name }}: {{ $value | quote }}
    {{- else }} {}
    {{- end }}
    {{- with .modelCache }}
    modelCache:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- $runtime := . }}
    {{- range $key := list "runtimeClassName" "schedulerName" "affinity" "topologySpreadConstraints" "resources" "resourceClaims" "volumes" "volumeMounts" "podAnnotations" "podLabels" "securityContext" }}
    {{- with index $runtime $key }}
    {{ $key }}: {{ . | toJson }}
    {{- end }}
    {{- end }}
{{- end }}
hyperparameters:
  batchSizeShare: {{ .hyperparameters.batchSizeShare | toJson }}
  batchSizeMaximum: {{ .hyperparameters.batchSizeMaximum | int64 }}
  learningRateMultipliers:
  {{- range .hyperparameters.learningRateMultipliers }}
    - {batchSizeFrom: {{ .batchSizeFrom | int64 }}, value: {{ .value | toJson }}}
  {{- end }}
{{ include "finetune-operator.dataLimits" $root }}
prepareResources:
  cpu: {{ .prepareResources.cpu | quote }}
  memory: {{ .prepareResources.memory | quote }}
  {{- with .prepareResources.ephemeralStorage }}
  ephemeralStorage: {{ . | quote }}
  {{- end }}
baseCheck:
  enabled: {{ .baseCheck.enabled }}
  resources:
    cpu: {{ .baseCheck.resources.cpu | quote }}
    memory: {{ .baseCheck.resources.memory | quote }}
    {{- with .baseCheck.resources.ephemeralStorage }}
    ephemeralStorage: {{ . | quote }}
    {{- end }}
estimatedRequests: {{ .pods.estimatedRequests | toJson }}
queuedRequests: {{ .kueue.estimatedRequests | toJson }}
checkpointBandwidth: {{ .pods.checkpointBandwidth | toJson }}
kueueEnabled: {{ .kueue.enabled }}
kueueVersion: {{ ternary (default "" .kueue.version) "" .kueue.enabled | quote }}
kueueQueuePrepare: {{ default false .kueue.queuePrepare }}
{{- if not (kindIs "invalid" .pendingDeadlineSeconds) }}
pendingDeadlineSeconds: {{ .pendingDeadlineSeconds | int64 }}
{{- end }}
podGroups: {{ dig "podGroups" false (default dict .gangs) }}
gangSeconds: {{ dig "releaseSeconds" 60 (default dict .gangs) | toJson }}
{{- $pods := dict }}
{{- range $key := list "env" "labels" "annotations" "allowedLabelPrefixes" "allowedAnnotationPrefixes" }}
{{- with index $root.Values.pods $key }}
{{- $_ := set $pods $key . }}
{{- end }}
{{- end }}
{{- with $pods }}
pods: {{ . | toJson }}
{{- end }}
{{- if .clusterAssignsUserIds }}
clusterAssignsUserIds: true
{{- end }}
{{- with .pods.certificates }}
{{- if or .configMap .secret }}
certificates: {{ dict "configMap" (default "" .configMap) "secret" (default "" .secret) "key" (default "ca.crt" .key) | toJson }}
{{- end }}
{{- end }}
{{- with .pods.proxy }}
{{- if or .https .http }}
proxy: {{ dict "https" (default "" .https) "http" (default "" .http) "exceptions" (default list .exceptions) | toJson }}
{{- end }}
{{- end }}
{{- with .pods.addressingStyle }}
addressingStyle: {{ . }}
{{- end }}
{{- with .pods.networkPolicy }}
{{- if .enabled }}
podNetwork:
  progressFrom:
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: {{ $root.Release.Namespace }}
      podSelector:
        matchLabels:
          {{- include "finetune-operator.selectorLabels" $root | nindent 10 }}
    {{- with .metricsFrom }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .egress }}
  egress:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- end }}
{{- if dig "enabled" false (default dict .serving) }}
serving:
  fetchImage: {{ include "finetune-operator.image" (list $root "trainer") | quote }}
  fetchResources: {{ .serving.fetchResources | toJson }}
  patienceSeconds: {{ .serving.patienceSeconds | toJson }}
  runtimes:
  {{- range .serving.runtimes }}
    - name: {{ .name | quote }}
      engine: {{ .engine }}
      {{- if and (ne .engine "finetune") (not .image) }}
      {{- fail (printf "serving.runtimes: the runtime %s has no image" .name) }}
      {{- end }}
      image: {{ default (include "finetune-operator.image" (list $root "trainer")) .image | quote }}
      env:
      {{- range $name, $value := .env }}
        {{ $name }}: {{ $value | quote }}
      {{- else }} {}
      {{- end }}
      {{- with .startSeconds }}
      startSeconds: {{ . | int64 }}
      {{- end }}
      {{- $runtime := . }}
      {{- range $key := list "args" "gpuResource" "nodeSelector" "tolerations" "priorityClassName" "runtimeClassName" "schedulerName" "affinity" "topologySpreadConstraints" "resources" "resourceClaims" "volumes" "volumeMounts" "podAnnotations" "podLabels" "securityContext" }}
      {{- with index $runtime $key }}
      {{ $key }}: {{ . | toJson }}
      {{- end }}
      {{- end }}
  {{- end }}
{{- end }}
requestTimeoutSeconds: {{ .operator.requestTimeoutSeconds | toJson }}
deletesModels: {{ .modelDeletion.enabled }}
metricsTokenReview: {{ .metrics.tokenReview }}
{{- end }}
{{- end }}
