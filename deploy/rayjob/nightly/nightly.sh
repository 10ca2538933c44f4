#!/bin/sh
# Create this night's RayJob and follow it to its end: the Job that runs this succeeds and fails with
# it. Environment: JOB_NAME and JOB_UID, those of the Job.
set -eu

# The date is the one the run was due, not the one on the clock: a late or repeated start means the
# same run. The name of a CronJob's Job ends in that minute, counted since 1970. A Job made by hand has
# another name, or digits that are not a minute of the last week: then it is today. A node's clock may
# be some minutes late.
now=$(($(date +%s) / 60))
due=${JOB_NAME##*-}
case $due in
  [1-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9]) age=$((now - due)) ;;
  *) age=-99 ;;
esac
if [ "$age" -lt -10 ] || [ "$age" -gt 10080 ]; then due=$now; fi
night=$(date -u -d "@$((due * 60))" +%F)

trap 'exit 143' TERM INT

state() {
  kubectl get rayjob "$JOB_NAME" --ignore-not-found -o \
    'jsonpath={.status.jobDeploymentStatus},{.status.jobStatus},{.status.reason}: {.status.message}'
}

# A pod before this one may have made it. One that failed is made anew: whether a failure is worth that
# is for the podFailurePolicy of the Job, by our exit code.
case $(state) in
  Failed,* | ValidationFailed,*) kubectl delete rayjob "$JOB_NAME" --cascade=foreground ;;
esac
# The Job owns it: who deletes the Job ends the run, and the history limits of the CronJob hold for both.
owner='{"apiVersion":"batch/v1","kind":"Job","name":"'$JOB_NAME'","uid":"'$JOB_UID'"}'
kubectl patch --local -f /template/rayjob.yaml -o yaml --type=merge -p \
  '{"metadata":{"name":"'"$JOB_NAME"'","ownerReferences":['"$owner"']},
    "spec":{"runtimeEnvYAML":"env_vars: {NIGHT: \"'"$night"'\"}"}}' > /tmp/rayjob.yaml
if ! answer=$(kubectl create -f /tmp/rayjob.yaml 2>&1); then
  case $answer in *AlreadyExists*) ;; *) echo "$answer" >&2; exit 1 ;; esac
fi
echo "$answer"
echo "night $night: kubectl logs --follow -l ray.io/node-type=head -c ray-head; the run: nightly-$night"

missed=0
while :; do
  sleep "${POLL_S:-15}" &
  wait $!
  # The API server may be away for a while.
  if ! now=$(state); then
    missed=$((missed + 1))
    [ "$missed" -lt 40 ] || exit 1
    continue
  fi
  missed=0
  case $now in
    Complete,SUCCEEDED,*) echo "complete"; exit 0 ;;
    Complete,* | Failed,* | ValidationFailed,*) break ;;
    "") echo "the RayJob $JOB_NAME was deleted" >&2; exit 143 ;;
  esac
done
echo "$now" >&2
# Ray's words: "Job entrypoint command failed with exit code 3, last available logs ...".
code=$(printf '%s' "$now" | sed -n 's/.*failed with exit code \([0-9][0-9]*\).*/\1/p' | head -n 1)
case $now in ValidationFailed,*) code=2 ;; esac
exit "${code:-1}"
