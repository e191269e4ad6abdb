package job

import (
	"errors"
	"fmt"
	"slices"

	"github.com/telerun/tele/initproc"
	"github.com/telerun/tele/limits"
	telev1 "github.com/telerun/tele/proto/tele/v1"
)

// A BadRequest is a field of a request that cannot be accepted.
type BadRequest struct {
	Field string // as in tele.v1: "spec.limits.memory"
	Why   string
}

func (e *BadRequest) Error() string { return e.Field + ": " + e.Why }

func bad(field, format string, args ...any) error {
	return &BadRequest{field, fmt.Sprintf(format, args...)}
}

// parseLimits turns what was asked for into values, none above most, with the defaults for what was
// not.
func parseLimits(asked *telev1.Limits, most limits.Limits) (limits.Limits, error) {
	values := limits.Default()
	for _, name := range limits.Names {
		values.Set(name, min(values.Get(name), most.Get(name)))
	}
	return askedLimits(values, asked, most, "spec.limits.")
}

// askedLimits is values with what was asked for in place, none above most. field is where the limits are in
// the request.
func askedLimits(values limits.Limits, asked *telev1.Limits, most limits.Limits, field string) (limits.Limits, error) {
	for name, text := range map[limits.Name]string{
		limits.CPU: asked.GetCpu(), limits.Memory: asked.GetMemory(), limits.Pids: asked.GetPids(),
		limits.IORead: asked.GetIoRead(), limits.IOWrite: asked.GetIoWrite(),
	} {
		if text == "" {
			continue
		}
		if len(text) > maxLimitText {
			return values, bad(field+string(name), "%s is no limit", Quote(text))
		}
		value, err := limits.Parse(name, text)
		if err != nil {
			return values, bad(field+string(name), "%v", err)
		}
		values.Set(name, value)
	}
	switch {
	case values.Memory == limits.Max:
		values.Swap = limits.Max
	case values.Swap == limits.Max: // with a memory limit it is as by default
		values.Swap = min(limits.Default().Swap, most.Swap)
	}
	if over := new(limits.Error); errors.As(values.CheckMax(most), &over) {
		return values, bad(field+string(over.Name), "%v", over)
	}
	return values, nil
}

// defaultOutput is how many bytes of output are kept of a job that asks for nothing.
const defaultOutput = 1 << 30

// outputLimit is how many bytes of output are kept of a job that asks for text, or limits.Max.
func (t *Table) outputLimit(text string) (int64, error) {
	most := int64(limits.Max)
	if t.options.MostOutput > 0 {
		most = t.options.MostOutput
	}
	if text == "" {
		return min(defaultOutput, most), nil
	}
	value, err := limits.Parse(limits.Output, text)
	if err != nil {
		return 0, bad("spec.output_limit", "%v", err)
	}
	if value > most {
		return 0, bad("spec.output_limit", "%v", &limits.Error{Name: limits.Output, Text: text,
			Why: "above this server's maximum, " + limits.Format(limits.Output, most)})
	}
	return value, nil
}

// outputStatus is what became of the output limit: the server itself holds it.
func (j *Job) outputStatus() *telev1.LimitStatus {
	value, _ := j.table.outputLimit(j.record.Job.Spec.OutputLimit) // was looked at before
	text := limits.Format(limits.Output, value)
	return &telev1.LimitStatus{Name: string(limits.Output), Asked: text, Applied: text,
		How: "the server stops the job when its output files have " + text}
}

// Check finds what is wrong with a request by looking at it alone.
func Check(spec *telev1.JobSpec, secrets ...*telev1.Secret) error {
	if err := checkSpec(spec); err != nil {
		return err
	}
	return CheckSecrets(secrets)
}

// environment is what the command gets: nothing of the server's own.
func environment(id, home, user string, asked map[string]string, secrets bool) []string {
	env := map[string]string{
		"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME": home, "USER": user,
	}
	for key, value := range asked {
		env[key] = value
	}
	env["TELE_JOB_ID"] = id
	if secrets {
		env[secretsEnv] = initproc.SecretsDir
	}
	var list []string
	for key, value := range env {
		list = append(list, key+"="+value)
	}
	slices.Sort(list)
	return list
}
