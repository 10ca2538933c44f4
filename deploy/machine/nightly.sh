#!/bin/sh
# One night, for cron: silent if it went well, else its exit code and its last lines, which cron mails.
#   nightly.sh SPEC... OPTIONS     as of `polyfit run`
# The date is the run's name, so a second start on one day finds the run complete and does nothing.
# flock: a night still at work is not joined by the next one.
set -u
logs=${POLYFIT_LOGS:-/var/log/polyfit}
cd "$(dirname "$0")/../.." || exit
night=$(date -u +%F)
log=$logs/$night.log
touch "$log" || exit
before=$(wc -c < "$log")
flock --nonblock --conflict-exit-code 75 "$logs/lock" \
  .venv/bin/polyfit run "$@" --run-id "nightly-{date}" --date "$night" >> "$log" 2>&1
status=$?
[ "$status" = 0 ] && exit
[ "$status" = 75 ] && echo "polyfit: an earlier night is still at work"
echo "polyfit: the night of $night ended with exit code $status; the end of $log:"
tail -c "+$((before + 1))" "$log" | tail -n 20
exit "$status"
