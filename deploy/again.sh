#!/bin/sh
# A night again on Kubernetes: what the CronJob would start, as a Job of its own, with more arguments of
# `polyfit run`. Without --date the night is today's; with it, it is this one alone, whatever --since the CronJob
# has. A Job of the same night made so before is replaced.
#   deploy/again.sh CRONJOB ARGUMENTS...
#   deploy/again.sh polyfit-nightly --date=2026-11-12 --retry-failed
set -eu
case ${1:-} in "" | -*) sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit 2 ;; esac
cronjob=$1 job=$1-again date='' since='' patch=''
shift
for word; do
  case $word in
    *[\"\\]*) echo "a quotation mark or a backslash is not passed on: $word" >&2; exit 2 ;;
    --date | --since) echo "write it as one word: $word=2026-11-12" >&2; exit 2 ;;
    --date=*) date=${word#*=} job=$cronjob-again-${word#*=} ;;
    --since=*) since=$word ;;
  esac
done
[ -z "$date" ] || [ -n "$since" ] || set -- "$@" "--since=$date"
for word; do
  patch="$patch${patch:+, }"'{"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": "'"$word"'"}'
done
made=$(kubectl create job --from="cronjob/$cronjob" "$job" --dry-run=client -o yaml)
made=$(printf '%s\n' "$made" | kubectl patch --local -f - --type=json -o yaml -p "[$patch]")
kubectl delete job "$job" --ignore-not-found --cascade=foreground
printf '%s\n' "$made" | kubectl create -f -
echo "kubectl logs --follow --pod-running-timeout=5m job/$job"
