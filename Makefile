# Everything here needs Go and nothing else; `make` alone lists it.
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
PREFIX  := /usr/local
BIN     := bin
ARCH    := $(shell go env GOARCH)
# Inits start before the Go runtime (initproc/entry.go).
ENTRY := -E _tele_entry
# Not PIE: relocations cost each start 1.6 ms. Symbols stay: a crash report without them is of no use.
BUILD := CGO_ENABLED=0 go build -trimpath -buildmode=exe -buildvcs=false -tags grpcnotrace -ldflags '-X main.version=$(VERSION) $(ENTRY)'

.PHONY: help build install proto man test test-entry test-vm test-systemd race fuzz lint check generated reproducible api api-accept demo chaos chaos-short package test-package bench bench-install bench-compare clean tools

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 14

# The linker writes through a mapping, and so the file is in the page cache in single pages. Of a copy, as
# what is installed is one, they are larger: a start maps them sooner, which takes a millisecond off.
build: ## bin/tele and its symlinks
	$(BUILD) -o $(BIN)/tele .
	@cp $(BIN)/tele $(BIN)/tele.copy && mv $(BIN)/tele.copy $(BIN)/tele
	@ln -sf tele $(BIN)/teleworker && ln -sf tele $(BIN)/telerun

install: build ## put tele, its symlinks, its systemd unit, manual pages and completion into PREFIX
	install -D -m 755 $(BIN)/tele $(DESTDIR)$(PREFIX)/bin/tele
	ln -sf tele $(DESTDIR)$(PREFIX)/bin/teleworker
	ln -sf tele $(DESTDIR)$(PREFIX)/bin/telerun
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system
	sed 's,^ExecStart=/usr/local/,ExecStart=$(PREFIX)/,' docs/tele.service >$(DESTDIR)$(PREFIX)/lib/systemd/system/tele.service
	install -d $(DESTDIR)$(PREFIX)/share/man/man1 $(DESTDIR)$(PREFIX)/share/man/man7
	install -m 644 docs/man/*.1 $(DESTDIR)$(PREFIX)/share/man/man1
	install -m 644 docs/man/*.7 $(DESTDIR)$(PREFIX)/share/man/man7
	install -D -m 644 client/cli/completion/tele.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/tele
	ln -sf tele $(DESTDIR)$(PREFIX)/share/bash-completion/completions/telerun
	ln -sf tele $(DESTDIR)$(PREFIX)/share/bash-completion/completions/teleworker
	install -D -m 644 client/cli/completion/_tele $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_tele
	for name in tele telerun teleworker; do install -D -m 644 client/cli/completion/tele.fish \
		$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/$$name.fish || exit 1; done

# A package's version begins with a digit and has no dash: 1.2, 1.2+5.gabcdef0 some commits later, and where no
# version was ever named 0~20261128.abcdef0.
PACKAGE_VERSION = $(shell echo $(VERSION) | sed -e 's/^v//' -e '/^[0-9][0-9]*\./!s/^/0~$(COMMIT_DAY)./' \
	-e 's/-\([0-9]*\)-g/+\1.g/' -e 's/-rc/~rc/' -e 's/-/./g')
COMMIT_DAY  = $(shell git log -1 --format=%cd --date=format:%Y%m%d)
COMMIT_TIME = $(shell git log -1 --format=%ct)
PACKAGE     = build/tele_$(PACKAGE_VERSION)_$(ARCH)

# In them is what `make install` makes, and nothing says when or where: the same commit makes the same files.
package: tools ## build/tele_VERSION_ARCH.deb, .rpm and .tar.gz, with ARCH=arm64 for such machines
	@rm -rf build/package
	GOARCH=$(ARCH) $(MAKE) install BIN=build/package/bin DESTDIR=build/package/root PREFIX=/usr
	gzip -9n build/package/root/usr/share/man/man*/*
	install -D -m 644 LICENSE build/package/root/usr/share/doc/tele/copyright
	find build/package/root -exec touch --no-dereference --date=@$(COMMIT_TIME) {} +
	for kind in deb rpm; do VERSION=$(PACKAGE_VERSION) ARCH=$(ARCH) SOURCE_DATE_EPOCH=$(COMMIT_TIME) \
		build/tools/nfpm package --packager $$kind --config docs/package/nfpm.yaml --target $(PACKAGE).$$kind || exit 1; done
	tar --create --directory build/package/root --sort=name --owner=0 --group=0 --numeric-owner usr | \
		gzip -9n >$(PACKAGE).tar.gz

test-package: package ## install the package in a root of its own, and run a job there
	TELE_PACKAGE=$(abspath $(PACKAGE).deb) go test -count 1 ./test/packaging

proto: tools ## generate the Go code of the API and the records
	cd proto && ../build/tools/buf generate

man: ## write the manual pages and the stored help anew, from what the commands say
	go test . -count 1 -run 'TestManPages|TestScripts/help' -update

# buf, the protoc plugins and staticcheck, at the versions of tools/go.mod.
tools:
	@go -C tools build -o ../build/tools/ tool

test: race test-entry test-package test-vm ## all tests, on this machine and on pure cgroup v2

test-vm: ## the tests that need a kernel, in virtual machines with pure cgroup v2
	go run ./test/vm --setup -- /bin/true
	go run ./test/vmtest
	$(MAKE) test-systemd

# Only from 254 on can systemd start a unit again in whose group jobs are: on Debian 12, with 252, its
# successor's is tested too. The other way round would not work: it brings its C library.
test-systemd: build ## the systemd unit, with systemd as process 1 of a virtual machine
	. /etc/os-release; for release in $$VERSION_CODENAME $$([ "$$VERSION_ID" != 12 ] || echo trixie); do \
		echo "== systemd of $$release"; \
		VM_PACKAGES=./test/systemd go run ./test/vmtest --systemd $$release --timeout 20m --env TELE_SYSTEMD=$$release || exit 1; \
	done

race: ## all tests of this machine, with the race detector; a quick run of the benchmark
	go test -race ./...
	go -C bench test .

# Test binaries that are entered as bin/tele is; the others' inits start from the package hook.
test-entry: ## the tests of what inits do, with inits that start before the Go runtime
	CGO_ENABLED=0 TELE_REQUIRE=$(TELE_REQUIRE),entry go test -ldflags '$(ENTRY)' ./initproc ./server/job .

fuzz: ## each fuzz test for ten seconds
	go test -fuzz=FuzzParse -fuzztime=10s ./limits
	go test -fuzz=FuzzParseMountinfo -fuzztime=10s ./limits/cgroup
	go test -fuzz=FuzzOpen -fuzztime=10s ./server/output
	go test -fuzz=FuzzDecode -fuzztime=10s ./initproc
	go test -fuzz=FuzzUnmarshal -fuzztime=10s ./proto/codec
	go test -fuzz=FuzzJobFile -fuzztime=10s ./client/cli
	go test -fuzz=FuzzSpec -fuzztime=10s ./server/job
	go test -fuzz=FuzzNames -fuzztime=10s ./server/job
	go test -fuzz=FuzzJournal -fuzztime=10s ./server/job
	go test -fuzz=FuzzSecrets -fuzztime=10s ./server/job
	go test -fuzz=FuzzPieces -fuzztime=10s ./proto/files
	go test -fuzz=FuzzUnpack -fuzztime=10s -fuzzminimizetime=10x ./proto/files

lint: tools ## gofmt, vet, staticcheck and buf lint
	@out=$$(gofmt -l .); [ -z "$$out" ] || { echo "gofmt wanted: $$out"; exit 1; }
	go vet ./...
	GOARCH=arm64 go vet ./...
	build/tools/staticcheck ./...
	go -C bench vet . && cd bench && ../build/tools/staticcheck .
	cd proto && ../build/tools/buf lint

check: lint generated reproducible api ## lint, and that go.mod, generated code, the APIs and the build are as they should be
	go mod tidy -diff
	go -C tools mod tidy -diff
	go -C bench mod tidy -diff

generated: tools
	@rm -rf build/generated && cd proto && ../build/tools/buf generate -o ../build/generated
	@cd build/generated && find . -name '*.go' | while read -r f; do cmp "$$f" "../../proto/$$f" || exit 1; done
	@echo "generated code is up to date"
	go test . -count 1 -run TestManPages

# What the package client exports, by go doc, without its words.
CLIENT_API := go doc -all ./client | sed -e '2,/^\(CONSTANTS\|VARIABLES\|FUNCTIONS\|TYPES\)$$/d' \
	-e '/^    /d' -e '/^\t*\/\//d' -e '/^$$/d' -e 's, *// .*,,'

api: tools ## that tele.v1 breaks no client, and that package client is as client/api.txt says
	@cd proto && ../build/tools/buf breaking --path tele/v1 --against baseline.binpb || \
		{ echo "clients of tele.v1 would break; if that is wanted: make api-accept"; exit 1; }
	@$(CLIENT_API) | diff -U0 client/api.txt - || \
		{ echo "the API of package client is not what client/api.txt says; if that is wanted: make api-accept"; exit 1; }
	@echo "the APIs are as they were accepted"

api-accept: tools ## take both APIs as they are now for what `make api` compares with
	cd proto && ../build/tools/buf build --exclude-source-info --path tele/v1 -o baseline.binpb
	$(CLIENT_API) >client/api.txt

reproducible:
	@mkdir -p build
	@$(BUILD) -o build/one . && $(BUILD) -a -o build/two . && cmp build/one build/two && echo "builds are reproducible"

demo: build ## see tele at work
	go run ./test/demo

# Both on tmpfs and on ext4, which is full in another way.
chaos: build ## kill, cut and fill everything for some minutes, with CHAOS="--seed N"
	go run ./test/chaos --disk tmpfs --time 3m $(CHAOS)
	go run ./test/chaos --disk ext4 --time 3m $(CHAOS)

chaos-short: build ## the same for some seconds
	go run ./test/chaos --time 12s $(CHAOS)

# Without QUICK and ROWS it writes docs/PERFORMANCE.md. The harness is built as tele is, for its client.
bench: build ## tele, the kernel alone and other tools in turn; QUICK=1 for a short run, ROWS=LIST for some
	go -C bench run -tags grpcnotrace . $(if $(QUICK),-quick) $(if $(ROWS),-rows $(ROWS)) \
		$(if $(QUICK)$(ROWS),,-docs ../docs -results ../build/bench.json)

bench-install: ## install what Debian has of the other tools
	go -C bench run . -install

bench-compare: ## what has changed since BASE=REVISION, by benchstat
	bench/compare.sh "$(BASE)"

clean: ## remove what was built
	rm -rf bin build
