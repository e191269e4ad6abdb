package initproc

import "testing"

// What is written to both comes through one pipe, in its order, and nothing through the other.
func TestMerge(t *testing.T) {
	needRoot(t)
	s := spec(t, "sh", "-c", "echo 1; echo 2 >&2; echo 3; echo 4 >&2; test -e /proc/self/fd/3 && echo more")
	s.Merge = true
	i, err := start(t, s)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := wait(t, i); err != nil {
		t.Fatal(err)
	}
	if out, errs := output(t, i.Stdout), output(t, i.Stderr); out != "1\n2\n3\n4\n" || errs != "" {
		t.Errorf("got %q and %q", out, errs)
	}
}
