#!/bin/sh
# A command for `tokenbroker work --exec examples/worker.sh`: one job, from standard input to exit status. Needs jq.
set -eu
read -r job
say() { jq -cn "$@"; }

url=$(printf '%s' "$job" | jq -r '.connect_url // empty')
if [ -n "$url" ]; then
  say '{step: "opening", percent: 10}'
  # A browser goes here. The callback completes the job; without one this fails it, and it is tried again.
  say '{fail: {reason: "NO_BROWSER", message: "this example has none", retry_seconds: 300}}'
  exit 0
fi

say '{step: "greeting", percent: 50, checkpoint: {greeted: true}}'
printf '%s' "$job" | jq -c '{result: {greeted: (.payload.name // "nobody"), attempt}}'
