package main

import (
	"io"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParseOptions(t *testing.T) {
	t.Setenv("PATH", "/bin")
	o, err := parseOptions(strings.Fields(
		"--setup --timeout 3m --silence 30s --mem 1G --cpus 4 --disk 64M --env A=1 --env A=2 --env HOME=/h --systemd trixie -- ls -l"),
		io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if !o.setup || o.timeout != 3*time.Minute || o.silence != 30*time.Second || o.memory != "1G" || o.cpus != 4 || o.disk != 64<<20 {
		t.Errorf("options %+v", o)
	}
	if o.systemd != "trixie" {
		t.Errorf("systemd %q", o.systemd)
	}
	if want := []string{"PATH=/bin", "A=2", "HOME=/h"}; !slices.Equal(o.env, want) {
		t.Errorf("environment %q, want %q", o.env, want)
	}
	if want := []string{"ls", "-l"}; !slices.Equal(o.argv, want) {
		t.Errorf("command %q, want %q", o.argv, want)
	}
}

func TestParseOptionsRefuses(t *testing.T) {
	for args, want := range map[string]string{
		"":                    "no command",
		"--mem 1T -- ls":      "--mem 1T",
		"--mem 2048 -- ls":    "--mem 2048",
		"--disk 0M -- ls":     "-disk",
		"--cpus 0 -- ls":      "--cpus 0",
		"--env PATH -- ls":    "NAME=VALUE",
		"--env =1 -- ls":      "NAME=VALUE",
		"--timeout soon -- x": "-timeout",
		"--fast -- ls":        "-fast",
		"--systemd ../x -- x": "--systemd ../x",
	} {
		_, err := parseOptions(strings.Fields(args), io.Discard)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("vm %s: error %v, want one with %q", args, err, want)
		}
	}
}
