#!/bin/sh
# Asks a served model: curl.sh URL [QUESTION]. A key, if it asks for one, in ALIDADE_ENDPOINT_KEY.
set -eu
url=${1%/}
question=${2:-What is the capital of France?}

# JSON: backslashes and quotes are escaped.
escaped=$(printf %s "$question" | sed 's/[\\"]/\\&/g')
# --config keeps the key out of the list of processes.
ask() {
    printf '%s\n' "${ALIDADE_ENDPOINT_KEY:+header = \"Authorization: Bearer $ALIDADE_ENDPOINT_KEY\"}" |
        curl --silent --show-error --fail-with-body --no-buffer --config - --header 'Content-Type: application/json' "$@"
}

echo "# text-generation-inference's API: how the text goes on, all at once"
ask "$url/generate" --data "{\"inputs\": \"$escaped\", \"parameters\": {\"max_new_tokens\": 32}}"
echo

echo "# OpenAI's API: an answer in a conversation, as it is written; 'tgi' is whatever model is served"
ask "$url/v1/chat/completions" --data "{
    \"model\": \"tgi\",
    \"messages\": [{\"role\": \"user\", \"content\": \"$escaped\"}],
    \"max_tokens\": 32,
    \"temperature\": 0,
    \"stream\": true
}"
