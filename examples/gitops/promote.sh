#!/usr/bin/env bash
# Writes into production's manifest the model that a resource of the cluster has come to:
#
#   examples/gitops/promote.sh alignmentrun/kbqa team-a
#
# What is to be served changes in git and nowhere else: commit it, and let the pull request be read.
set -euo pipefail
resource=${1:?promote.sh KIND/NAME [NAMESPACE]}
namespace=${2:-default}
target=$(dirname "$0")/production/model.yaml

told() { kubectl get "$resource" --namespace "$namespace" --output "jsonpath={$1}"; }

phase=$(told .status.phase)
if [[ $phase != Succeeded ]]; then
  echo "$resource is ${phase:-new}: only what has succeeded, its gate passed, is promoted" >&2
  exit 1
fi
uri=$(told .status.model.uri)
cat >"$target" <<EOF
# Written by promote.sh.
apiVersion: alidade.dev/v1alpha1
kind: ModelServe
metadata:
  name: kbqa-production
  annotations:
    alidade.dev/promoted-from: $namespace/$resource
    alidade.dev/model-digest: "$(told .status.model.digest)"
spec:
  model: {uri: "$uri"}
EOF
echo "$target: $uri"
