#!/usr/bin/env bash
# Writes the generated code anew with the tools that are present: sqlc for the
# queries, protoc for the messages. The results are committed, so that building
# needs neither.
set -euo pipefail
cd "$(dirname "$0")/.."
go=${GO:-go}

if command -v sqlc >/dev/null; then
	sqlc generate
else
	echo "generate: sqlc is not installed, queries are left as they are; get it with: go install github.com/sqlc-dev/sqlc/cmd/sqlc@v1.31.1" >&2
fi

if command -v protoc >/dev/null; then
	# The plugin is built from the module's own version of protobuf.
	plugin=$(mktemp -d)
	trap 'rm -rf "$plugin"' EXIT
	$go build -o "$plugin/protoc-gen-go" google.golang.org/protobuf/cmd/protoc-gen-go
	protoc --plugin="$plugin/protoc-gen-go" --go_out=. --go_opt=paths=source_relative ./*/*pb/*.proto
	# Stubs for the services that are called through generated code. The bridge
	# writes its own.
	GOBIN=$plugin $go install google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.1
	protoc --plugin="$plugin/protoc-gen-go-grpc" --go-grpc_out=. --go-grpc_opt=paths=source_relative ./control/controlpb/control.proto
else
	echo "generate: protoc is not installed, messages are left as they are; on Debian: apt-get install protobuf-compiler" >&2
fi

# The document of the API is what the API says of itself; a test holds it.
$go test ./httpapi -run TestDocumentIsTheOneReviewed -update >/dev/null

# The client of test/api is what oapi-codegen makes of that document. Of the one in
# OpenAPI 3.0 it makes the same, but for bytes, which are text there.
$go run github.com/oapi-codegen/oapi-codegen/v2/cmd/oapi-codegen@v2.8.2 -config test/apiclient/config.yaml httpapi/testdata/openapi.json ||
	echo "generate: oapi-codegen cannot be had now, the client is left as it is" >&2
