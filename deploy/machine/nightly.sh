#!/bin/bash
# One night, for cron, which mails what this prints: nothing if the night went well, else polyfit's errors
# and the command that repeats this night.
#   nightly.sh SPEC... OPTIONS     as of `polyfit run`; without --date the night is today's in UTC
# Where the storage or the cluster fails (5, 6), or polyfit is killed, it is tried twice more, 20 minutes
# later each.
# Environment: POLYFIT_LOGS, a folder for logs and locks (/var/log/polyfit).
set -u
case ${1:-} in "" | -*) sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit 2 ;; esac
here=$(cd "$(dirname "$0")" && pwd) && cd "$here/../.." || exit
logs=${POLYFIT_LOGS:-/var/log/polyfit}
if [ ! -d "$logs" ] || [ ! -w "$logs" ]; then
  echo "polyfit: nothing was run: $logs is no folder that $(id -un) may write;" \
    "sudo install -d -o $(id -un) $logs, or set POLYFIT_LOGS"
  exit 2
fi

# The same specs, store and options run one at a time, whatever their dates.
night=$(date -u +%F)
work=()
name='' value=''
for word; do
  case $name in
    --date) night=$word value=$word ;;
    --since) value=$word ;;
    *) value='' ;;
  esac
  case $word in
    --date=*) night=${word#*=} ;;
    --date | --since | --since=* | --retry-failed) ;;
    *) [ -n "$value" ] || work+=("$word") ;;
  esac
  name=$word
done
[[ $night =~ ^[0-9]{4}-[0-9]{2}-[0-9]{2}$ ]] || night=$(date -u +%F) # it names a file; polyfit refuses such a date
id=$(basename "${1%.*}")-$(printf '%s\n' "${work[@]}" | cksum | cut -d ' ' -f 1)
log=$logs/$night-$id.log
# polyfit inherits the lock: it holds for as long as polyfit lives, also without this script.
exec 9> "$logs/$id.lock" || exit
if ! flock --nonblock 9; then
  echo "polyfit: the night of $night was not started: an earlier start of the same command is still at work"
  exit 75
fi

touch "$log" || exit
before=$(wc -c < "$log")
stopped=''
trap '[ -n "${!:-}" ] || exit 143; stopped=yes; kill -TERM $! 2> /dev/null' TERM INT HUP
finish() {  # wait for the last child, also through signals, which it gets too; bash tells of a kill: not here
  { wait $!; status=$?; } 2> /dev/null
  while kill -0 $! 2> /dev/null; do { wait $!; status=$?; } 2> /dev/null; done
}
for pause in "${POLYFIT_RETRY_S:-1200}" "${POLYFIT_RETRY_S:-1200}" ''; do
  # What is given after the name and the date of the night counts instead of them.
  .venv/bin/polyfit run --run-id "nightly-{date}" --date "$night" "$@" >> "$log" 2>&1 &
  finish
  case $status in 5 | 6 | 13[4-9]) ;; *) break ;; esac # 134 to 139: 128 and the signal that killed it
  [ -n "$pause" ] && [ -z "$stopped" ] || break
  echo "$(date -u +%FT%TZ) exit code $status: once more in $pause s" >> "$log"
  code=$status
  sleep "$pause" 9>&- &
  finish
  status=$code
  [ -z "$stopped" ] || break
done
[ "$status" = 0 ] && exit

killed=''
case $status in
  137) killed=": it was killed, as for want of memory (journalctl -k)" ;;
  13[4-9]) killed=": it was killed by signal $((status - 128))" ;;
esac
echo "polyfit: the night of $night ended with exit code $status$killed"
told=$(tail -c "+$((before + 1))" "$log")
# Errors, and how several nights went. Without any, as after a bug, the last lines.
grep -E '^polyfit: |nightly runs: ' <<< "$told" | tail -n 20 | grep . ||
  { echo "the last lines of its log:"; tail -n 20 <<< "$told"; }
again=("$here/nightly.sh" "$@")
[[ " $*" == *" --date"* ]] || again+=(--date "$night")
# Where shards have failed polyfit names this option; a damaged run needs what its error says.
[[ $status != 3 || $told != *--retry-failed* || " $* " == *" --retry-failed "* ]] || again+=(--retry-failed)
[ -z "${AWS_DEFAULT_REGION:-}" ] || again=("AWS_DEFAULT_REGION=$AWS_DEFAULT_REGION" "${again[@]}")
echo "log: $log"
echo "this night again:$(printf ' %q' "${again[@]}")"
exit "$status"
