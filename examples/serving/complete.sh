#!/bin/sh
# Request a completion with cURL. BASE_URL is the address of the server, for example
# http://support-tone:8000/v1.
# usage: complete.sh MODEL PROMPT
set -eu
body=$(printf '{"model": "%s", "prompt": "%s", "max_tokens": 16, "temperature": 0}' "$1" "$2")
curl --fail --silent --show-error "$BASE_URL/completions" \
  --header "Authorization: Bearer ${API_KEY:-none}" \
  --header "Content-Type: application/json" \
  --data "$body"
