#!/usr/bin/env bash
# Lets a Prometheus scrape a server for a few seconds, and prints what it then knows: prometheus.sh ADDRESS
# Says so and does nothing where there is no prometheus.
set -euo pipefail

target="${1#http://}"
if ! command -v prometheus >/dev/null || ! command -v promtool >/dev/null; then
    echo "prometheus is not installed (on Debian, make fetches it): nothing is scraped"
    exit 0
fi
work="$(mktemp --directory)"
trap 'kill "${prometheus:-}" 2>/dev/null || true; wait; rm -r "$work"' EXIT
cat >"$work/prometheus.yml" <<YAML
global: {scrape_interval: 1s}
scrape_configs:
  - job_name: serving
    static_configs: [{targets: ["$target"]}]
YAML
port="$(python -c 'import socket; probe = socket.socket(); probe.bind(("127.0.0.1", 0)); print(probe.getsockname()[1])')"
server="http://127.0.0.1:$port"
prometheus --config.file="$work/prometheus.yml" --storage.tsdb.path="$work/data" \
    --web.listen-address="127.0.0.1:$port" --log.level=error &
prometheus=$!

query() { promtool query instant "$server" "$1" 2>/dev/null; }
for _ in $(seq 60); do
    if [ -n "$(query 'tgi_request_success > 0')" ]; then break; fi
    sleep 0.5
done
show() {
    printf '\033[36m%s\033[0m\n' "$1"
    query "$1" | sed 's/ @\[.*//'
}
show 'up{job="serving"}'
show tgi_request_success
show modelserve_generated_tokens_total
show 'histogram_quantile(0.95, modelserve_time_to_first_token_seconds_bucket)'
