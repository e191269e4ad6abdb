package access

import (
	"context"
	"slices"
	"strings"
)

// Role is a set of rights.
type Role string

// The roles. An identity may have several and has the rights of all of them.
const (
	Admin  Role = "admin"  // sees and controls every job
	User   Role = "user"   // starts jobs, sees and controls its own
	Viewer Role = "viewer" // sees every job, controls none
)

// Known says whether r is one of the roles there are.
func (r Role) Known() bool {
	return r == Admin || r == User || r == Viewer
}

// Identity is who makes a call.
type Identity struct {
	Name  string
	Roles []Role
}

// Has says whether i has at least one of roles.
func (i Identity) Has(roles ...Role) bool {
	return slices.ContainsFunc(roles, func(r Role) bool { return slices.Contains(i.Roles, r) })
}

// Sees says whether a job of owner exists for i.
func (i Identity) Sees(owner string) bool {
	return i.Has(Admin, Viewer) || i.owns(owner)
}

// Controls says whether i may stop a job of owner.
func (i Identity) Controls(owner string) bool {
	return i.Has(Admin) || i.owns(owner)
}

func (i Identity) owns(owner string) bool {
	return i.Has(User) && i.Name != "" && i.Name == owner
}

// String is the name with the roles, for messages: "alice (user)".
func (i Identity) String() string {
	return i.Name + " (" + joinRoles(i.Roles, ", ", "no role") + ")"
}

func joinRoles(roles []Role, separator, none string) string {
	if len(roles) == 0 {
		return none
	}
	texts := make([]string, len(roles))
	for n, r := range roles {
		texts[n] = string(r)
	}
	return strings.Join(texts, separator)
}

// knownRoles picks the roles among texts; a certificate may name organisations that are none.
func knownRoles(texts []string) []Role {
	var roles []Role
	for _, text := range texts {
		if r := Role(text); r.Known() && !slices.Contains(roles, r) {
			roles = append(roles, r)
		}
	}
	return roles
}

type identityKey struct{}

// NewContext returns a context that carries id. The guard calls it for every request; a test of a
// method calls it in the guard's place.
func NewContext(ctx context.Context, id Identity) context.Context {
	return context.WithValue(ctx, identityKey{}, id)
}

// FromContext returns who makes the call that ctx belongs to; false when no guard has seen it.
func FromContext(ctx context.Context) (Identity, bool) {
	id, ok := ctx.Value(identityKey{}).(Identity)
	return id, ok
}
