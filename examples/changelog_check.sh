#!/usr/bin/env bash
# An agent in Bash with curl: checks that changed sources come with an entry in the changelog.
#
# Changes are those of the work tree, or else of the last commit. The outcome goes to the sidecar over HTTP: an
# event first, then the result under a key of its own, so that a retry stores it once.
set -euo pipefail

cd "$AGENT_WORKSPACE"

# A JSON string: backslash, quote and control characters are the only ones that need care.
quoted() {
  local text=${1//\\/\\\\}
  text=${text//\"/\\\"}
  printf '"%s"' "$(printf '%s' "$text" | tr '\000-\037' ' ')"
}

post() { # PATH BODY [HEADER]
  # The token goes through standard input: arguments are visible to every user of the machine.
  printf 'header = "Authorization: Bearer %s"\n' "$JWT_TOKEN" |
    curl --config - --silent --show-error --fail-with-body --max-time 30 \
      --retry 3 --retry-connrefused \
      --header 'Content-Type: application/json' ${3:+--header "$3"} \
      --data "$2" "$SIDECAR_URL$1"
}

changed=$(git --no-optional-locks status --porcelain --untracked-files=all | cut -c4-)
source='the work tree'
if [[ -z $changed ]]; then
  changed=$(git --no-optional-locks log -1 --name-only --format= 2>/dev/null || true)
  source='the last commit'
fi

has_sources=no has_entry=no files=()
while IFS= read -r name; do
  [[ -n $name ]] || continue
  files+=("$(quoted "$name")")
  case ${name,,} in
    *changelog* | *changes.md | *history.md) has_entry=yes ;;
    *.py | *.js | *.ts | *.go | *.rs | *.java | *.c | *.cpp | *.rb | *.php | *.sh) has_sources=yes ;;
  esac
done <<<"$changed"

findings='' decision='The changelog fits the changes.'
if [[ $has_sources == yes && $has_entry == no ]]; then
  decision='The changes need a changelog entry.'
  findings='{"severity": "medium", "path": "CHANGELOG.md", "message": "sources changed, but no changelog entry did"}'
fi

printf '{"type": "progress", "message": "looked at %d changed files of %s"}\n' "${#files[@]}" "$source"

post /events/changelog_checked "{\"topic\": \"documentation\", \"event_id\": \"$AGENT_ID-checked\",
  \"data\": {\"has_entry\": \"$has_entry\", \"has_sources\": \"$has_sources\"}}" >/dev/null

joined=$(IFS=,; printf '%s' "${files[*]-}")
post /results "{\"agent_id\": \"$AGENT_ID\", \"agent_type\": \"$AGENT_TYPE\", \"issue_id\": \"$ISSUE_ID\",
  \"project_id\": \"$PROJECT_ID\", \"result\": {
    \"status\": \"success\",
    \"summary\": $(quoted "$decision"),
    \"decisions\": [$(quoted "$decision")],
    \"findings\": [$findings],
    \"artifacts\": {\"changed_files\": [$joined], \"source\": $(quoted "$source")}
  }}" "Idempotency-Key: $AGENT_ID-result" >/dev/null
