#!/usr/bin/env bash
# A cluster on this machine, an AlignmentRun, a model that has learned what is right. Run it with `make demo`.
# KEEP=1 leaves the cluster running afterwards.
set -euo pipefail
cd "$(dirname "$0")/../.."

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
run() { printf '\033[36m$ %s\033[0m\n' "$*"; "$@"; }

started=$SECONDS
stop() {
    status=$?
    trap - EXIT
    kill "${watcher:-}" "${forwarder:-}" 2>/dev/null || true
    rm -f "${forwarded:-}"
    if [ -z "${KEEP:-}" ]; then
        run alidade down --name demo
    else
        say "The cluster still runs. Stop it with: alidade down --name demo"
    fi
    exit $status
}

say "1. A local cluster: API server, controllers, kubelet, operator"
alidade down --name demo --purge >/dev/null
trap stop EXIT
run alidade up --name demo
eval "$(alidade env --name demo)"

say "2. Data, a pretraining job and an AlignmentRun, applied with kubectl"
run kubectl apply --server-side -k examples/kbqa

say "3. Pretraining, SFT, a reward model, RAFT, an evaluation: two workers each"
run kubectl get alignmentrun kbqa --watch &
watcher=$!
until kubectl wait alignmentrun/kbqa --for=jsonpath='{.status.finishedAt}' --timeout=60s >/dev/null 2>&1; do
    if [ $((SECONDS - started)) -gt 1200 ]; then
        echo "the run has not ended after 20 minutes; it says:" >&2
        kubectl describe alignmentrun kbqa >&2
        exit 1
    fi
done
sleep 1 # lets the watch print the last line
kill "$watcher" 2>/dev/null || true
if ! kubectl wait alignmentrun/kbqa --for=condition=Succeeded --timeout=1s >/dev/null 2>&1; then
    kubectl describe alignmentrun kbqa >&2
    exit 1
fi

say "4. What it was made of"
run kubectl get alidade
run kubectl get events --field-selector involvedObject.name=kbqa

say "5. Is it better? The run's Evaluation, and the gate that its numbers had to pass"
run alidade compare ar/kbqa
kubectl get alignmentrun kbqa -o jsonpath='{.status.conditions[?(@.type=="GatePassed")].message}{"\n"}'

say "6. The model answers"
run alidade chat ar/kbqa \
    --prompt "Tell me who the author of Anna Karenina is." \
    --prompt "你知道《三体》是谁写的吗？"

say "7. Served: quantized, measured before and after, behind an address"
run kubectl get modelserve kbqa
kubectl get modelserve kbqa --output jsonpath='{.status.quantization.type}, {.status.quantization.sizeBytes} bytes: perplexity {.status.quantization.perplexityBefore} before, {.status.quantization.perplexityAfter} after{"\n"}'
forwarded="$(mktemp)"
printf '\033[36m$ kubectl port-forward service/kbqa :80\033[0m\n'
kubectl port-forward service/kbqa :80 >"$forwarded" &
forwarder=$!
until port="$(sed -n 's/^Forwarding from 127.0.0.1:\([0-9]*\) .*/\1/p' "$forwarded")" && [ -n "$port" ]; do
    kill -0 "$forwarder"
    sleep 0.2
done
address="http://127.0.0.1:$port"
question="Tell me who the author of Anna Karenina is."
# /generate goes on with a text as it stands: the turns are written out as the model has learnt them.
turns=$'<|im_start|>user\n'"$question"$'<|im_end|>\n<|im_start|>assistant\n'
if command -v curl >/dev/null; then
    run curl --silent --show-error "$address/generate" --header "Content-Type: application/json" \
        --data "{\"inputs\": \"${turns//$'\n'/\\n}\", \"parameters\": {\"max_new_tokens\": 24}}"
    echo
fi
run python examples/clients/hub_client.py "$address" "$question"
run python examples/clients/openai_client.py "$address" "$question"
# text-generation-inference's own client wants an older huggingface-hub, so it has an environment of its own.
if client="$(python tools/environment.py .tools/text-generation text-generation==0.7.0)"; then
    run "$client" examples/clients/text_generation_client.py "$address" "$turns"
fi

say "8. What it exports, scraped by a Prometheus"
examples/kbqa/prometheus.sh "$address"

say "Done in $((SECONDS - started)) s. As pages for the browser: the evaluation, and the alignment's curves and lineage"
alidade report "eval/$(kubectl get alignmentrun kbqa -o jsonpath='{.status.stages[?(@.kind=="Evaluation")].ref}')"
alidade report ar/kbqa
