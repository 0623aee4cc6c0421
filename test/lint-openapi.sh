#!/usr/bin/env bash
# Lints the OpenAPI document in the tree, which a test keeps equal to the one
# that is served. The linter comes from npm, and this fails when it cannot be had.
set -euo pipefail
cd "$(dirname "$0")/.."
linter=@redocly/cli@2.77.0

if ! command -v npx >/dev/null; then
	echo "lint: the OpenAPI document was NOT linted: npx (npm) is not installed" >&2
	exit 1
fi
if ! REDOCLY_TELEMETRY=off timeout 120 npx --yes "$linter" --version >/dev/null 2>&1; then
	echo "lint: the OpenAPI document was NOT linted: $linter cannot be had from npm now" >&2
	exit 1
fi
# Kept beside the document and not in the tree's root, where nobody looks for it.
REDOCLY_TELEMETRY=off timeout 120 npx --yes "$linter" lint httpapi/testdata/openapi.json --config httpapi/testdata/redocly.yaml --format=stylish
