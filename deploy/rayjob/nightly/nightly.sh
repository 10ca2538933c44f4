#!/bin/sh
# Create this night's RayJob and follow it to its end: the Job that runs this succeeds and fails with
# it. Environment: JOB_NAME and JOB_UID, those of the Job.
#   nightly.sh RAYJOB ARGUMENTS...    a file with the object, and more arguments of `polyfit run`
set -eu
template=$1
shift

# The date is the one the run was due, not the one on the clock: a late or repeated start means the
# same run. The name of a CronJob's Job ends in that minute, counted since 1970. A Job made by hand has
# another name: then it is today. Eight digits that are no minute of the last week mean some other
# night, which is not guessed. A node's clock may be some minutes late. --date among the arguments
# counts instead.
now=$(($(date +%s) / 60))
due=${JOB_NAME##*-}
case $due in
  [1-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9]) age=$((now - due)) ;;
  *) due=$now age=0 ;;
esac
case " $*" in
  *" --date"*) ;;
  *)
    if [ "$age" -lt -10 ] || [ "$age" -gt 10080 ]; then
      echo "polyfit: the name $JOB_NAME ends in no minute of the last week;" \
        "add the night to the arguments, as --date=2026-11-12, or choose another name" >&2
      exit 2
    fi
    set -- --date "$(date -u -d "@$((due * 60))" +%F)" "$@" ;;
esac

# They are words of the entrypoint's shell, inside YAML inside JSON.
case $* in
  *[!A-Za-z0-9\ =:,.@%{}/_-]*) echo "polyfit: what quotes would need is not passed on: $*" >&2; exit 2 ;;
esac
if ! grep -q '\$NIGHT' "$template"; then
  echo 'polyfit: the entrypoint of the RayJob lacks its last word, $NIGHT: it would run without --date' >&2
  exit 2
fi

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
kubectl patch --local -f "$template" -o yaml --type=merge -p \
  '{"metadata":{"name":"'"$JOB_NAME"'","ownerReferences":['"$owner"']},
    "spec":{"runtimeEnvYAML":"env_vars: {NIGHT: \"'"$*"'\"}"}}' > /tmp/rayjob.yaml
if ! answer=$(kubectl create -f /tmp/rayjob.yaml 2>&1); then
  case $answer in *AlreadyExists*) ;; *) echo "$answer" >&2; exit 1 ;; esac
fi
echo "$answer"
echo "night $*: kubectl logs --follow -l ray.io/node-type=head -c ray-head"

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
