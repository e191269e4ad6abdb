package job

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	telev1 "github.com/telerun/tele/proto/tele/v1"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
)

// Every bound: the last that is good, and the first that is not.
func TestCheckSecrets(t *testing.T) {
	named := func(name string) []*telev1.Secret { return []*telev1.Secret{{Name: name, Data: []byte("x")}} }
	several := func(n, size int) (list []*telev1.Secret) {
		for i := range n {
			list = append(list, &telev1.Secret{Name: fmt.Sprint(i), Data: make([]byte, size)})
		}
		return list
	}
	for _, secrets := range [][]*telev1.Secret{nil, named("a"), named("A-z_0.9"), named("..."), named(strings.Repeat("x", 64)),
		several(64, 4096), several(4, 64<<10), several(1, 0)} {
		if err := CheckSecrets(secrets); err != nil {
			t.Errorf("%.60v: %v", secrets, err)
		}
	}
	for _, secrets := range [][]*telev1.Secret{named(""), named("."), named(".."), named("a/b"), named("a b"), named("é"), named("a\x00"),
		named(strings.Repeat("x", 65)), several(65, 1), several(1, 64<<10+1), several(5, 52<<10+512),
		append(named("a"), named("a")...), {nil}} {
		request := new(BadRequest)
		if err := CheckSecrets(secrets); !errors.As(err, &request) || request.Field != "secrets" {
			t.Errorf("%.60v: %v", secrets, err)
		}
	}
}

func FuzzSecrets(f *testing.F) {
	f.Add("token", "..", []byte("x"), uint8(1))
	f.Add("a/b", "a", []byte{0}, uint8(255))
	f.Fuzz(func(t *testing.T, a, b string, data []byte, times uint8) {
		secrets := []*telev1.Secret{{Name: a, Data: bytes.Repeat(data, int(times))}, {Name: b, Data: data}}
		spec := &telev1.JobSpec{Command: []string{"true"}}
		err := CheckSecrets(secrets)
		if err == nil {
			table := &Table{root: true, options: Options{StateDir: "/state", Most: noLimits}}
			_, err = (&sandbox{table: table, id: "fuzz", dir: "/state/jobs/fuzz", uid: DefaultFirstUID}).newPlan(
				request{spec: spec, secrets: secrets, room: room{work: 1 << 20, tmp: 1 << 20}}, false)
		}
		request := new(BadRequest)
		if err != nil && (!errors.As(err, &request) || len(err.Error()) > 1000) {
			t.Errorf("%q and %q, %d bytes: %.200v", a, b, len(data), err)
		}
	})
}

const secretText = "correct horse battery staple"

// showSecrets prints what a job finds of its secrets.
const showSecrets = `cd $TELE_SECRETS && pwd && stat -c '%n %a %u %g %s' . * && cat token && cat large | cksum
touch new 2>&1 | grep -o 'Read-only.*'; (echo x >token) 2>&1 | grep -o 'Read-only.*'
chmod 600 token 2>&1 | grep -o 'Read-only.*'; rm -rf $TELE_SECRETS 2>/dev/null; mv /dev/shm/secrets /dev/shm/x 2>/dev/null; cat token`

// A job finds its secrets, whatever its root is and however its sandbox was made, and can only read them.
func TestSecretsInAJob(t *testing.T) {
	for name, work := range map[string]Work{"in memory": WorkTmpfs, "on disk": WorkDisk} {
		t.Run(name, func(t *testing.T) {
			table := with(t, open(t), func(o *Options) { o.Work, o.Warm = work, 1 })
			for _, root := range []string{"", RootOverlay, "warm"} {
				spec := sh(showSecrets)
				if root == "warm" {
					if work != WorkTmpfs {
						continue
					}
					awaitWarm(t, table, 1)
				} else {
					spec.Root = root
				}
				large := bytes.Repeat([]byte("x"), maxSecret)
				secrets := []*telev1.Secret{{Name: "token", Data: []byte(secretText + "\n")}, {Name: "large", Data: large}, {Name: "empty"}}
				j, err := table.Start(t.Context(), "me", "", spec, secrets...)
				if err != nil {
					t.Fatal(err)
				}
				if bytes.Contains(secrets[0].Data, []byte("correct")) {
					t.Error("the server keeps what is in them")
				}
				job, out := wait(t, j), read(t, j)
				uid := j.uid
				want := fmt.Sprintf("/dev/shm/secrets\n. 500 %d %d 100\nempty 400 %d %d 0\nlarge 400 %d %d %d\ntoken 400 %d %d %d\n%s\n",
					uid, uid, uid, uid, uid, uid, maxSecret, uid, uid, len(secretText)+1, secretText)
				want += "1281127553 65536\nRead-only file system\nRead-only file system\nRead-only file system\n" + secretText + "\n"
				if out != want {
					t.Errorf("%s: %v: got\n%s\nwant\n%s", root, job.Message, out, want)
				}
			}
		})
	}
}

// What is in a secret is nowhere but in its file: not in what the host shows of processes, not in anything on
// disk, no snapshot and no plan. A command beside the job's own finds it, also under the next server.
func TestSecretsAreNowhereElse(t *testing.T) {
	table := with(t, open(t), func(o *Options) { o.Work = WorkDisk })
	secret := func() *telev1.Secret { return &telev1.Secret{Name: "token", Data: []byte(secretText)} }
	spec := sh("cksum $TELE_SECRETS/token; echo ready; exec sleep 1000")
	plan, err := table.Plan(spec, secret())
	if err != nil || !strings.Contains(plan, "place the secret token, 28 bytes") || strings.Contains(plan, secretText) {
		t.Errorf("plan, %v:\n%s", err, plan)
	}
	j, err := table.Start(t.Context(), "me", "k", spec, secret())
	if err != nil {
		t.Fatal(err)
	}
	firstOutput(t, j)
	same, err := table.Start(t.Context(), "me", "k", spec, &telev1.Secret{Name: "token", Data: []byte("another")})
	if err != nil || same != j {
		t.Errorf("the same key: %v, %v", same, err)
	}
	nowhere := func(when string) {
		t.Helper()
		if data, err := proto.Marshal(find(t, table, j.id).Snapshot()); err != nil || bytes.Contains(data, []byte(secretText)) {
			t.Errorf("%s: in the snapshot, %v", when, err)
		}
		err := filepath.WalkDir(table.options.StateDir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			data, err := os.ReadFile(path)
			if bytes.Contains(data, []byte(secretText)) {
				t.Errorf("%s: in %s", when, path)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
		for _, name := range []string{"environ", "cmdline"} {
			paths, _ := filepath.Glob("/proc/[0-9]*/" + name) // the pattern is right
			if len(paths) == 0 {
				t.Error("no processes")
			}
			for _, path := range paths {
				if data, _ := os.ReadFile(path); bytes.Contains(data, []byte(secretText)) { // it may have ended
					t.Errorf("%s: in %s", when, path)
				}
			}
		}
	}
	nowhere("running")
	table = reopen(t, table)
	j = find(t, table, j.id)
	if out, code := runBeside(t, j, "cat $TELE_SECRETS/token"); out != secretText || code != 0 {
		t.Errorf("beside: %q, %d", out, code)
	}
	if err := j.Stop(unix.SIGKILL, 0, "me"); err != nil {
		t.Fatal(err)
	}
	wait(t, j)
	nowhere("ended")
}
