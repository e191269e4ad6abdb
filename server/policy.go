package server

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"github.com/telerun/tele/server/access"
	"github.com/telerun/tele/server/job"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// A Grant is how far out of the sandbox the jobs of one role may get. Its zero value is what a role
// has of which nothing is said.
type Grant struct {
	// HostNetwork lets jobs have the machine's network.
	HostNetwork bool `json:"host_network"`
	// Roots are other roots: "overlay", or directories, each with all below it. Unset is overlay alone.
	Roots []string `json:"roots"`
	// Mounts are what may be mounted, each with all below it: read-only, or with :rw also writable.
	Mounts []string `json:"mounts"`
	// Users are whom jobs may run as: NAME or UID, and with :GID that group.
	Users []string `json:"users"`
}

// Policy is the one place that says which role's jobs may have more than a sandbox gives: the setting
// "allow", by role. A caller with several roles may what one of them may.
type Policy map[access.Role]Grant

// grantees are the roles that start jobs, the mightier first.
var grantees = []access.Role{access.Admin, access.User}

// Decode reads the setting, from the configuration file or as JSON from the command line. It is a
// kong.MapperValue.
func (p *Policy) Decode(ctx *kong.DecodeContext) error {
	token, err := ctx.Scan.PopValue("policy")
	if err != nil {
		return err
	}
	text, isText := token.Value.(string)
	if !isText {
		data, err := json.Marshal(token.Value)
		if err != nil {
			return err
		}
		text = string(data)
	}
	decoder := json.NewDecoder(bytes.NewReader([]byte(text)))
	decoder.DisallowUnknownFields()
	var read Policy
	if err := decoder.Decode(&read); err != nil {
		return fmt.Errorf(`allow: %w; write it like {"user": {"mounts": ["/data", "/scratch:rw"]}} (docs/SANDBOX.md)`, err)
	}
	*p = read
	return nil
}

// check finds rules that could never fit, or fit more than it seems.
func (p Policy) check() error {
	for role, g := range p {
		if !slices.Contains(grantees, role) {
			return fmt.Errorf("allow.%s: there is no such role that starts jobs; there are admin and user", role)
		}
		for _, root := range g.Roots {
			if root != job.RootOverlay && !isClean(root) {
				return fmt.Errorf("allow.%s.roots: %q is neither overlay nor an absolute path with no . or .. in it", role, root)
			}
		}
		for _, mount := range g.Mounts {
			if source, _ := strings.CutSuffix(mount, ":rw"); !isClean(source) {
				return fmt.Errorf("allow.%s.mounts: %q is no absolute path without . and .., with or without :rw", role, mount)
			}
		}
		for _, user := range g.Users {
			if _, err := job.FindUser(user); err != nil {
				return fmt.Errorf("allow.%s.users: %w", role, err)
			}
		}
	}
	return nil
}

func isClean(p string) bool { return path.IsAbs(p) && path.Clean(p) == p }

// allows refuses what of a request no role of the caller's may have, and names the rule that would
// have to say so. The request is one that job.Check found nothing wrong with, so its paths are written
// in one way; that no link leads them elsewhere is seen to when they are opened.
func (p Policy) allows(who access.Identity, spec *telev1.JobSpec) error {
	refuse := func(rule, what string) error {
		role := access.User
		if who.Has(access.Admin) {
			role = access.Admin
		}
		return status.Errorf(codes.PermissionDenied, "%s is not allowed for role %s (allow.%s.%s)", what, role, role, rule)
	}
	may := func(fits func(Grant) bool) bool {
		return slices.ContainsFunc(grantees, func(r access.Role) bool { return who.Has(r) && fits(p[r]) })
	}
	if spec.Network == telev1.Network_NETWORK_HOST && !may(func(g Grant) bool { return g.HostNetwork }) {
		return refuse("host_network", "network host")
	}
	if spec.Root != "" && !may(func(g Grant) bool { return g.root(spec.Root) }) {
		return refuse("roots", "root "+spec.Root)
	}
	for _, m := range spec.Mounts {
		if !may(func(g Grant) bool { return g.mount(m.Source, m.Writable) }) {
			what := "mount " + m.Source
			if m.Writable {
				what += ":rw"
			}
			return refuse("mounts", what)
		}
	}
	if spec.User == "" {
		return nil
	}
	user, err := job.FindUser(spec.User)
	if err != nil {
		return toStatus(&job.BadRequest{Field: "spec.user", Why: err.Error()})
	}
	if !may(func(g Grant) bool { return g.user(user) }) {
		return refuse("users", "user "+spec.User)
	}
	return nil
}

func (g Grant) root(root string) bool {
	if g.Roots == nil {
		return root == job.RootOverlay
	}
	return slices.ContainsFunc(g.Roots, func(rule string) bool {
		return rule == root || rule != job.RootOverlay && root != job.RootOverlay && below(root, rule)
	})
}

func (g Grant) mount(source string, writable bool) bool {
	return slices.ContainsFunc(g.Mounts, func(rule string) bool {
		dir, mayWrite := strings.CutSuffix(rule, ":rw")
		return (mayWrite || !writable) && below(source, dir)
	})
}

func below(p, dir string) bool {
	return p == dir || strings.HasPrefix(p, strings.TrimSuffix(dir, "/")+"/")
}

// user: a rule without a group is for the user's own.
func (g Grant) user(user job.User) bool {
	return slices.ContainsFunc(g.Users, func(rule string) bool {
		allowed, err := job.FindUser(rule)
		if err != nil || allowed.UID != user.UID {
			return false
		}
		return allowed.GID == user.GID && (allowed.OwnGID || strings.Contains(rule, ":"))
	})
}
