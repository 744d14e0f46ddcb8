#!/usr/bin/env bash
# A cluster on this machine, a FineTuneJob, a model that answers. Run it with `make demo`.
# KEEP=1 leaves the cluster running afterwards.
set -euo pipefail
cd "$(dirname "$0")/../.."

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
run() { printf '\033[36m$ %s\033[0m\n' "$*"; "$@"; }

started=$SECONDS
stop() {
    status=$?
    trap - EXIT
    kill "${watcher:-}" 2>/dev/null || true
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

say "2. The data as a ConfigMap and a FineTuneJob, applied with kubectl"
run kubectl apply --server-side -k examples/kbqa

say "3. Two DeepSpeed workers train"
run kubectl get finetunejob kbqa-sft --watch &
watcher=$!
until kubectl wait finetunejob/kbqa-sft --for=jsonpath='{.status.finishedAt}' --timeout=60s >/dev/null 2>&1; do
    if [ $((SECONDS - started)) -gt 900 ]; then
        echo "the job has not ended after 15 minutes; its log:" >&2
        alidade logs ftj/kbqa-sft >&2
        exit 1
    fi
done
sleep 1 # lets the watch print the last line
kill "$watcher" 2>/dev/null || true
if ! kubectl wait finetunejob/kbqa-sft --for=condition=Succeeded --timeout=1s >/dev/null 2>&1; then
    kubectl describe finetunejob kbqa-sft >&2
    exit 1
fi

say "4. What the operator tells of it"
run kubectl get events --field-selector involvedObject.name=kbqa-sft
run kubectl get pytorchjob,pods

say "5. The model answers"
run alidade chat ftj/kbqa-sft \
    --prompt "What is the capital of France?" \
    --prompt "法国的首都是哪里？"

say "Done in $((SECONDS - started)) s. Curves, settings and sample answers, as a page for the browser:"
alidade report ftj/kbqa-sft
