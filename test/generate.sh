#!/usr/bin/env bash
# Writes the generated code anew: the queries (sqlc), the messages (protoc), the
# OpenAPI document, and the client of test/apiclient (oapi-codegen). The results are
# committed, so that building needs none of the tools. It fails when a tool is
# missing; test/setup.sh installs protoc, the others are built from tools/go.mod.
#
# With --verify it fails when that changes a file: what is in the tree is not fresh.
set -euo pipefail
cd "$(dirname "$0")/.."
go=${GO:-go}

generated() { git ls-files -- '*.pb.go' '*/queries/*' httpapi/testdata/openapi.json '*.gen.go'; }
sums() { generated | xargs -d '\n' sha256sum; }

if ! command -v protoc >/dev/null; then
	echo "generate: protoc is missing; on Debian: apt-get install protobuf-compiler" >&2
	exit 1
fi
if [[ $(generated | wc -l) -lt 10 ]]; then
	echo "generate: git does not list the generated files; is this a clone?" >&2
	exit 1
fi
before=$(sums)

tools/run.sh sqlc generate

for plugin in protoc-gen-go protoc-gen-go-grpc; do tools/run.sh "$plugin" --version >/dev/null; done
protoc --plugin=bin/tools/protoc-gen-go --go_out=. --go_opt=paths=source_relative ./*/*pb/*.proto
# Stubs for the services that are called through generated code. The bridge writes
# its own.
protoc --plugin=bin/tools/protoc-gen-go-grpc --go-grpc_out=. --go-grpc_opt=paths=source_relative ./control/controlpb/control.proto

# The document of the API is what the API says of itself; a test holds it.
$go test ./httpapi -run TestDocumentIsTheOneReviewed -update >/dev/null

# The client of test/api is what oapi-codegen makes of that document. Of the one in
# OpenAPI 3.0 it makes the same, but for bytes, which are text there.
for part in models config; do tools/run.sh oapi-codegen -config "test/apiclient/$part.yaml" httpapi/testdata/openapi.json; done

if [[ ${1:-} == --verify ]]; then
	if ! changed=$(diff <(echo "$before") <(sums)); then
		echo "generate: not fresh; commit what make generate wrote:" >&2
		echo "$changed" | sed -n 's/^> [0-9a-f]*  /  /p' >&2
		exit 1
	fi
	echo "generate: all $(generated | wc -l) generated files are fresh"
fi
