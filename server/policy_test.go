package server

import (
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"github.com/telerun/tele/server/access"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func parsePolicy(text string) (Policy, error) {
	var c struct{ Allow Policy }
	parser, err := kong.New(&c, kong.Exit(func(int) {}))
	if err != nil {
		return nil, err
	}
	if _, err = parser.Parse([]string{"--allow", text}); err != nil {
		return nil, err
	}
	return c.Allow, c.Allow.check()
}

// Each cell: what is asked for, and which roles may, under each policy.
func TestPolicy(t *testing.T) {
	policies := map[string]string{
		"default": `{}`,
		"some": `{"user": {"mounts": ["/data", "/scratch:rw"], "roots": ["/srv/images"], "users": ["nobody", "1234:99"]},
		          "admin": {"host_network": true, "roots": ["overlay", "/srv"], "mounts": ["/:rw"], "users": ["root", "daemon", "4321"]}}`,
		"none": `{"user": {"roots": []}, "admin": {"roots": []}}`,
	}
	mount := func(source string, writable bool) *telev1.JobSpec {
		return &telev1.JobSpec{Mounts: []*telev1.Mount{{Source: source, Target: "/x", Writable: writable}}}
	}
	root := func(root string) *telev1.JobSpec { return &telev1.JobSpec{Root: root} }
	user := func(user string) *telev1.JobSpec { return &telev1.JobSpec{User: user} }
	for _, test := range []struct {
		spec    *telev1.JobSpec
		allowed string // POLICY/ROLE, of all six
		what    string // of the refusal, with its rule
	}{
		{&telev1.JobSpec{}, "default/user default/admin some/user some/admin none/user none/admin", ""},
		{&telev1.JobSpec{Network: telev1.Network_NETWORK_NONE}, "default/user default/admin some/user some/admin none/user none/admin", ""},
		{&telev1.JobSpec{Network: telev1.Network_NETWORK_HOST}, "some/admin", "network host|host_network"},
		{root("overlay"), "default/user default/admin some/admin", "root overlay|roots"},
		{root("/srv/images"), "some/user some/admin", "root /srv/images|roots"},
		{root("/srv/images/a"), "some/user some/admin", "root /srv/images/a|roots"},
		{root("/srv/images2"), "some/admin", "root /srv/images2|roots"},
		{root("/srv"), "some/admin", "root /srv|roots"},
		{root("/"), "", "root /|roots"},
		{mount("/data", false), "some/user some/admin", "mount /data|mounts"},
		{mount("/data/a", false), "some/user some/admin", "mount /data/a|mounts"},
		{mount("/data", true), "some/admin", "mount /data:rw|mounts"},
		{mount("/database", false), "some/admin", "mount /database|mounts"},
		{mount("/scratch", true), "some/user some/admin", "mount /scratch:rw|mounts"},
		{mount("/scratch/a", false), "some/user some/admin", "mount /scratch/a|mounts"},
		{mount("/", false), "some/admin", "mount /|mounts"},
		{user("nobody"), "some/user", "user nobody|users"},
		{user("nobody:0"), "", "user nobody:0|users"},
		{user("1234:99"), "some/user", "user 1234:99|users"},
		{user("1234"), "", "user 1234|users"},
		{user("0"), "some/admin", "user 0|users"},
		{user("root"), "some/admin", "user root|users"},
		{user("0:1"), "", "user 0:1|users"},
		{user("4321"), "some/admin", "user 4321|users"},
		{user("4321:4321"), "some/admin", "user 4321:4321|users"},
		{user("4321:0"), "", "user 4321:0|users"},
		{&telev1.JobSpec{Mounts: []*telev1.Mount{{Source: "/data"}, {Source: "/etc"}}}, "some/admin", "mount /etc|mounts"},
	} {
		for name, text := range policies {
			policy, err := parsePolicy(text)
			if err != nil {
				t.Fatal(err)
			}
			for _, role := range grantees {
				err := policy.allows(access.Identity{Name: "x", Roles: []access.Role{role}}, test.spec)
				if strings.Contains(test.allowed, name+"/"+string(role)) {
					if err != nil {
						t.Errorf("%s, %s: %v", name, role, err)
					}
					continue
				}
				what, rule, _ := strings.Cut(test.what, "|")
				if test.spec.Mounts != nil && name != "some" {
					what = "mount " // the first of them is refused
				}
				want := " is not allowed for role " + string(role) + " (allow." + string(role) + "." + rule + ")"
				if status.Code(err) != codes.PermissionDenied || !strings.HasPrefix(status.Convert(err).Message(), what) ||
					!strings.HasSuffix(status.Convert(err).Message(), want) {
					t.Errorf("%s, %s: got %v, want %s%s", name, role, err, what, want)
				}
			}
			both := access.Identity{Name: "x", Roles: []access.Role{access.User, access.Admin}}
			if allowed := policy.allows(both, test.spec) == nil; len(test.spec.Mounts) < 2 &&
				allowed != strings.Contains(test.allowed, name+"/") {
				t.Errorf("%s, both roles: %v", name, test.spec)
			}
			if viewer := (access.Identity{Name: "x", Roles: []access.Role{access.Viewer}}); test.what != "" && policy.allows(viewer, test.spec) == nil {
				t.Errorf("%s, viewer: %v", name, test.spec)
			}
		}
	}
	if err := (Policy{}).allows(access.Identity{}, user("no-such-user")); status.Code(err) != codes.InvalidArgument {
		t.Errorf("got %v", err)
	}
}

func TestBadPolicies(t *testing.T) {
	for text, want := range map[string]string{
		`{"user": {"mount": ["/data"]}}`:        `unknown field "mount"`,
		`{"viewer": {"mounts": ["/data"]}}`:     "allow.viewer: there is no such role",
		`{"user": {"mounts": ["data"]}}`:        `allow.user.mounts: "data" is no absolute path`,
		`{"user": {"mounts": ["/a/../b:rw"]}}`:  `allow.user.mounts: "/a/../b:rw"`,
		`{"user": {"mounts": ["/a/"]}}`:         `allow.user.mounts: "/a/"`,
		`{"admin": {"roots": ["overlays"]}}`:    `allow.admin.roots: "overlays" is neither`,
		`{"admin": {"users": ["no-such-one"]}}`: `allow.admin.users: "no-such-one"`,
		`{"admin": {"users": ["-1"]}}`:          `allow.admin.users: "-1"`,
		`{"admin": {"users": ["4294967295"]}}`:  `allow.admin.users: "4294967295"`,
		`{"admin": {"users": ["0:x"]}}`:         `"x" is no number of a group`,
		`[]`:                                    "cannot unmarshal",
	} {
		if _, err := parsePolicy(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", text, err, want)
		}
	}
	c := Command{AllowHostNetwork: true, Allow: Policy{access.User: {Mounts: []string{"/data"}}}}
	all, err := c.policy()
	if err != nil || !all[access.User].HostNetwork || !all[access.Admin].HostNetwork || len(all[access.User].Mounts) != 1 {
		t.Errorf("got %v, %v", all, err)
	}
}

func TestUIDRange(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "1879048192:65536": "", "2000000000:1": "", "4294967294:1": "",
		"4294967295:1": "past the highest", "4294967290:6": "past the highest", "0:10": "begins with root",
		"10": "write it like", "10:0": "write it like", "-1:5": "write it like", "x:y": "write it like", "1:5000000000": "write it like",
		"60000:10000": "overlaps with /etc/passwd: nobody:", "1:1": "overlaps with /etc/passwd: daemon:",
	} {
		first, count, err := parseUIDRange(text)
		if want == "" && (err != nil || count == 0 || first == 0) || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: got %d, %d, %v, want %q", text, first, count, err, want)
		}
	}
	const subuid = "alice:100000:65536\nbroken\n"
	for first, want := range map[uint64]string{99_000: "alice:100000:65536", 165_535: "alice:100000:65536", 165_536: "", 98_000: ""} {
		if got := overlap(subuid, 1, 2, first, 1001); got != want {
			t.Errorf("from %d: got %q, want %q", first, got, want)
		}
	}
}
