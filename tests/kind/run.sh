#!/usr/bin/env bash
# Installs the chart on a kind cluster with the images of this machine, and has a small FineTuneJob trained there.
#   KIND_CLUSTER=alidade tests/kind/run.sh
# Wants docker, kind, kubectl and helm; kubectl's present context has to be the cluster. The images come first:
#   docker buildx bake operator trainer-cpu
set -euo pipefail
cd "$(dirname "$0")/../.."

explain() {
    status=$?
    if [ "$status" -ne 0 ]; then
        kubectl describe finetunejob,pytorchjob,pod --namespace team || true
        kubectl logs --namespace team --selector alidade.dev/kind=FineTuneJob --tail 100 --prefix || true
        kubectl logs --namespace alidade-system deployment/alidade-operator --tail 200 || true
    fi
    exit "$status"
}
trap explain EXIT

kind load docker-image --name "${KIND_CLUSTER:-alidade}" alidade/operator:0.1.0 alidade/trainer:0.1.0-cpu
kubectl apply --server-side --kustomize tests/kind/training-operator
kubectl rollout status --namespace kubeflow deployment/training-operator --timeout 300s

for namespace in alidade-system team; do
    kubectl create namespace "$namespace"
    kubectl label namespace "$namespace" pod-security.kubernetes.io/enforce=restricted
done
helm install alidade charts/alidade --namespace alidade-system --values tests/kind/values.yaml
kubectl rollout status --namespace alidade-system deployment/alidade-operator --timeout 180s
helm test alidade --namespace alidade-system

kubectl apply --server-side --namespace team --kustomize examples/kbqa/data
kubectl apply --server-side --namespace team --filename tests/kind/finetune.yaml
kubectl wait --namespace team finetunejob/tiny --for condition=Succeeded --timeout 600s
kubectl get --namespace team finetunejob tiny
test -n "$(kubectl get --namespace team finetunejob tiny --output jsonpath='{.status.model.digest}')"
