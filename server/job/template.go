package job

import (
	"sync"

	"github.com/telerun/tele/initproc"
)

// A common is what the sandboxes of this server have in common, as long as the host's mounts are those
// that it was made from.
type common struct {
	mu       sync.RWMutex // held for reading while it is in use
	template *initproc.Template
	seen     int // the state of the mounts
}

// canTemplate tells whether sandboxes of this server can begin with a template at all.
func (t *Table) canTemplate() bool { return t.root && t.work == WorkTmpfs }

// fromTemplate tells whether the sandbox for r can begin with the template: it has nothing of the host's
// beside.
func (t *Table) fromTemplate(r request) bool {
	return t.canTemplate() && r.spec.Root == "" && len(r.where.mounts) == 0
}

// useTemplate returns the template for r, or nil where the sandbox is made without. The caller calls
// done when init has begun.
func (t *Table) useTemplate(r request) (template *initproc.Template, done func()) {
	none := func() {}
	if !t.fromTemplate(r) {
		return nil, none
	}
	_, seen := t.hiding()
	t.common.mu.RLock()
	if t.common.template == nil || t.common.seen != seen {
		t.common.mu.RUnlock()
		return nil, none
	}
	return t.common.template, t.common.mu.RUnlock
}

// stale tells whether the template was made, or could not be, from other mounts than there are now.
func (t *Table) stale() bool {
	_, seen := t.hiding()
	t.common.mu.RLock()
	defer t.common.mu.RUnlock()
	return t.common.seen != seen
}

// renewTemplate makes the template anew, from the mounts as they are.
func (t *Table) renewTemplate() {
	_, seen := t.hiding()
	template, err := initproc.NewTemplate(t.life, t.templateSpec())
	if err != nil {
		t.options.Log.Warn().Err(err).Msg("every sandbox is made from nothing, starts take longer")
		template = nil
	}
	t.setTemplate(template, seen)
}

func (t *Table) templateSpec() initproc.Spec {
	hide, _ := t.hiding()
	return initproc.Spec{Anchor: t.anchor(), Hide: hide}
}

func (t *Table) setTemplate(template *initproc.Template, seen int) {
	t.common.mu.Lock()
	old := t.common.template
	t.common.template, t.common.seen = template, seen
	t.common.mu.Unlock()
	if old != nil {
		old.Close()
	}
}
