#!/usr/bin/env bash
# Runs a program of this module as tools/go.mod pins it, in the present folder:
#
#	tools/run.sh golangci-lint run
#
# It is built into bin/tools first, which takes a minute or two once for the large
# ones (golangci-lint, sqlc), and no time when it is there.
set -euo pipefail
name=$1
shift
top=$(cd "$(dirname "$0")/.." && pwd)
package=$(sed -n "s|^tool \(.*/$name\)\$|\1|p; s|^\t\(.*/$name\)\$|\1|p" "$top/tools/go.mod" | head -1)
if [[ -z $package ]]; then
	echo "tools: $name is no tool of tools/go.mod" >&2
	exit 2
fi
if [[ ! -x $top/bin/tools/$name ]]; then echo "tools: building $name, once" >&2; fi
"${GO:-go}" build -C "$top/tools" -o "$top/bin/tools/" "$package"
exec "$top/bin/tools/$name" "$@"
