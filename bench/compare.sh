#!/bin/sh
# compare.sh BASE: what has changed since the revision BASE. Both programs are driven by this tree's
# harness, and every Go benchmark of both trees is run, base and head in turn; benchstat judges.
set -eu
base=${1:?a revision}
rounds=${ROUNDS:-8}
cd "$(dirname "$0")/.."
head=$PWD
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
git archive "$base" | tar -x -C "$tree"
make -C "$tree" -s build VERSION="$base"
make -s build
go -C bench test -tags grpcnotrace -c -o ../build/bench.test
rm -f build/base.txt build/head.txt

launches() { # FILE TELE
	(cd bench && TELE=$2 ../build/bench.test -test.run '^$' -test.bench "${BENCH:-.}" -test.benchtime 1s) >>"$1"
}
packages() { # FILE TREE
	(cd "$2" && for dir in $(grep -rl --include='*_test.go' '^func Benchmark' . | grep -v '^./b[eu]' | xargs -r -n 1 dirname | sort -u); do
		go test -run '^$' -bench "${BENCH:-.}" -benchtime 0.2s "$dir"
	done) >>"$1"
}
for round in $(seq "$rounds"); do
	echo "round $round of $rounds" >&2
	launches build/base.txt "$tree/bin/tele"
	launches build/head.txt "$head/bin/tele"
	packages build/base.txt "$tree"
	packages build/head.txt "$head"
done
go -C bench tool benchstat base=../build/base.txt head=../build/head.txt
