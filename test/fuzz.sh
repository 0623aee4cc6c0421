#!/usr/bin/env bash
# Runs every fuzz target of the module for the given time, one after the other.
set -euo pipefail
time=${1:-10s}
go=${GO:-go}
for package in $($go list ./...); do
	for target in $($go test -list '^Fuzz' "$package" | grep '^Fuzz' || true); do
		echo "== $package $target"
		$go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" "$package"
	done
done
echo "== every operation of the API, with input of its schemas"
$go test ./httpapi -run '^TestEveryOperationWithInputOfItsSchema$' -schemafuzz "${SCHEMAFUZZTIME:-60s}" -v | grep -v '^==='
