package main

import (
	"os/exec"
	"strings"
	"testing"
)

// allowed are the edges of tele's own packages: imports only go down. What is not here is not
// allowed; whoever adds a line says in review why.
var allowed = map[string][]string{
	"":                      {"client/cli", "initproc", "proto/files", "server", "server/access", "server/doctor"},
	"client":                {"proto/codec", "proto/files", "proto/tele/v1"},
	"client/cli":            {"client", "proto/files", "proto/tele/v1"},
	"server":                {"server/access", "server/doctor", "server/job", "server/output", "initproc", "limits", "limits/cgroup", "proto/codec", "proto/tele/v1"},
	"server/access":         {"proto/tele/v1"},
	"server/doctor":         {"server/access", "server/job", "server/output", "initproc", "limits", "limits/cgroup", "proto/tele/v1"},
	"server/job":            {"server/output", "server/seccomp", "initproc", "limits", "limits/cgroup", "limits/quota", "proto/files", "proto/tele/v1", "proto/tele/record/v1"},
	"server/output":         {},
	"server/seccomp":        {},
	"initproc":              {},
	"docs/man":              {}, // for a test of the program's, which writes the pages
	"limits":                {},
	"limits/cgroup":         {"limits"},
	"limits/quota":          {},
	"proto/codec":           {"proto/tele/v1"},
	"proto/files":           {},
	"proto/tele/v1":         {},
	"proto/tele/record/v1":  {"proto/tele/v1"},
	"test/vm":               {"test/vm/internal/spec"},
	"test/vm/guest":         {"test/vm/internal/spec"},
	"test/vm/internal/spec": {},
	"test/vmtest":           {},
	"test/systemd":          {},
	"test/packaging":        {}, // tests alone
	"test/demo":             {},
	"test/chaos":            {"client", "proto/tele/v1"},
	"test/attacks":          {}, // tests alone
}

// lean packages run in the init, or another part of the sandbox: the standard library and x/sys/unix alone.
var lean = map[string]bool{"initproc": true, "limits": true, "limits/cgroup": true, "limits/quota": true, "proto/files": true}

func TestImports(t *testing.T) {
	const module = "github.com/telerun/tele"
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		words := strings.Fields(line)
		from := strings.TrimPrefix(strings.TrimPrefix(words[0], module), "/")
		edges, known := allowed[from]
		if !known {
			t.Errorf("package %q is not in the table", from)
		}
		may := map[string]bool{}
		for _, to := range edges {
			may[to] = true
		}
		for _, path := range words[1:] {
			to, own := strings.CutPrefix(path, module+"/")
			first, _, _ := strings.Cut(path, "/")
			switch {
			case own && !may[to]:
				t.Errorf("%s imports %s", from, to)
			case !own && lean[from] && strings.Contains(first, ".") && path != "golang.org/x/sys/unix":
				t.Errorf("%s imports %s", from, path)
			}
		}
	}
}

// banned are packages that the program is not to link, however it comes by them: each start pays for
// what they set up.
var banned = map[string]string{
	"google.golang.org/protobuf/types/descriptorpb": "0.6 ms, with what comes with it; server/reflection.go does without",
}

func TestLinkedPackages(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	linked := strings.Fields(string(out))
	if len(linked) < 100 {
		t.Fatalf("the program has %d packages; gRPC alone has more", len(linked))
	}
	for _, path := range linked {
		if why, is := banned[path]; is {
			t.Errorf("the program links %s: %s", path, why)
		}
	}
}
