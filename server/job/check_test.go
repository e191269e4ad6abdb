package job

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/telerun/tele/initproc"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Every bound: the last value that is good, and the first that is not.
func TestCheckSpecBounds(t *testing.T) {
	x := func(n int) string { return strings.Repeat("x", n) }
	many := func(n int, text string) (list []string) {
		for range n {
			list = append(list, text)
		}
		return list
	}
	year := 365 * 24 * time.Hour
	for name, tt := range map[string]struct {
		change func(s *telev1.JobSpec, n int)
		most   int
		field  string
	}{
		"argument":          {func(s *telev1.JobSpec, n int) { s.Command = []string{"a", x(n)} }, maxString, "spec.command"},
		"variable":          {func(s *telev1.JobSpec, n int) { s.Env = map[string]string{"abc": x(n - 4)} }, maxString, "spec.env"},
		"a variable's name": {func(s *telev1.JobSpec, n int) { s.Env = map[string]string{x(n - 4): "abc"} }, maxString, "spec.env"},
		"arguments": {func(s *telev1.JobSpec, n int) { s.Command = append(s.Command, many(n, "")...) },
			(MaxStrings - len("true") - 9) / 9, "spec.command"},
		"variables": {func(s *telev1.JobSpec, n int) {
			s.Env = map[string]string{}
			for i := range n {
				s.Env[fmt.Sprintf("%06d", i)] = ""
			}
		}, (MaxStrings - len("true") - 9) / 16, "spec.command"},
		"bytes": {func(s *telev1.JobSpec, n int) {
			s.Command = append(s.Command, many(8, x(MaxStrings/9))...)
			s.Command = append(s.Command, x(n))
		}, MaxStrings - 8*(MaxStrings/9+9) - len("true") - 9 - 9, "spec.command"},
		"path of the program": {func(s *telev1.JobSpec, n int) { s.Command[0] = "/" + x(n-1) }, 4095, "spec.command"},
		"name of the program": {func(s *telev1.JobSpec, n int) { s.Command[0] = x(n) }, 255, "spec.command"},
		"PATH":                {func(s *telev1.JobSpec, n int) { s.Env = map[string]string{"PATH": strings.Repeat(":", n-1)} }, 1024, "spec.env"},
		"cwd":                 {func(s *telev1.JobSpec, n int) { s.Cwd = "/" + x(n-1) }, 4095, "spec.cwd"},
		"years":               {func(s *telev1.JobSpec, n int) { s.Timeout = durationpb.New(time.Duration(n) * year) }, 100, "spec.timeout"},
		"centuries":           {func(s *telev1.JobSpec, n int) { s.Timeout = &durationpb.Duration{Seconds: int64(n) * 1e10} }, 0, "spec.timeout"},
		"name":                {func(s *telev1.JobSpec, n int) { s.Name = x(n) }, 64, "spec.name"},
		"host name":           {func(s *telev1.JobSpec, n int) { s.Hostname = x(n) }, 64, "spec.hostname"},
		"a label's key":       {func(s *telev1.JobSpec, n int) { s.Labels = map[string]string{x(n): "a"} }, 63, "spec.labels"},
		"a label's value":     {func(s *telev1.JobSpec, n int) { s.Labels = map[string]string{"a": x(n)} }, 63, "spec.labels"},
		"labels": {func(s *telev1.JobSpec, n int) {
			s.Labels = map[string]string{}
			for i := range n {
				s.Labels[fmt.Sprint(i)] = ""
			}
		}, 64, "spec.labels"},
		"network": {func(s *telev1.JobSpec, n int) { s.Network = telev1.Network(n) }, 2, "spec.network"},
	} {
		t.Run(name, func(t *testing.T) {
			spec := &telev1.JobSpec{Command: []string{"true"}}
			tt.change(spec, tt.most)
			if err := checkSpec(spec); err != nil {
				t.Errorf("%d: %v", tt.most, err)
			} else if _, err := planOf(spec); err != nil {
				t.Errorf("%d: no plan: %v", tt.most, err)
			}
			spec = &telev1.JobSpec{Command: []string{"true"}}
			tt.change(spec, tt.most+1)
			request := new(BadRequest)
			if err := checkSpec(spec); !errors.As(err, &request) || request.Field != tt.field {
				t.Errorf("%d: got %v, want a wrong %s", tt.most+1, err, tt.field)
			}
		})
	}
}

// planOf is the plan for a spec that was found good.
func planOf(spec *telev1.JobSpec) (*initproc.Plan, error) {
	t := &Table{root: true, options: Options{StateDir: "/state", Most: noLimits}}
	values, err := parseLimits(spec.Limits, noLimits)
	if err != nil {
		return nil, err
	}
	return (&sandbox{table: t, id: "fuzz", dir: "/state/jobs/fuzz", uid: DefaultFirstUID}).newPlan(
		request{spec: spec, values: values, room: room{work: 1 << 20, tmp: values.Memory}}, false)
}

// Whatever is asked for, the answer is a plan, or a short text that says what is wrong. The strings
// are taken many times over, for the bounds are far from what a fuzzer would write.
func FuzzSpec(f *testing.F) {
	f.Add("true\nx", "A=b\nPATH=/bin:/usr/bin", "/tmp", int64(1), int32(0), int32(1), "1.5", "500M", uint16(1))
	f.Add("a\x00b", "=", "relative", int64(-1), int32(5), int32(-1), "-1", "1e9", uint16(1))
	f.Add("\xff", "\xff=\xff", "/\xff", int64(1)<<62, int32(1)<<30, int32(99), "max", "99999999999999999999T", uint16(60000))
	f.Add("x", "PATH=:", "/", int64(0), int32(999999), int32(2), "", "", uint16(4000))
	f.Fuzz(func(t *testing.T, command, env, cwd string, seconds int64, nanos, network int32, cpu, memory string, times uint16) {
		if (len(command)+len(env)+len(cwd)+len(cpu))*int(times) > 4*MaxStrings {
			return // the wire lets no more in
		}
		repeat := func(text string) string { return strings.Repeat(text, int(times)) }
		spec := &telev1.JobSpec{Cwd: repeat(cwd), Network: telev1.Network(network), Env: map[string]string{},
			Limits:  &telev1.Limits{Cpu: repeat(cpu), Memory: memory, Pids: cpu, IoRead: memory, IoWrite: memory},
			Timeout: &durationpb.Duration{Seconds: seconds, Nanos: nanos}}
		program, arguments, _ := strings.Cut(command, "\n")
		spec.Command = append([]string{repeat(program)}, strings.Split(repeat(arguments), "\n")...)
		for i, line := range strings.Split(env, "\n") {
			key, value, _ := strings.Cut(line, "=")
			spec.Env[key] = repeat(value)
			if i%2 == 1 {
				spec.Env[repeat(key)] = value
			}
		}
		err := checkSpec(spec)
		if err == nil {
			_, err = planOf(spec)
		}
		request := new(BadRequest)
		if err != nil && !errors.As(err, &request) {
			t.Fatalf("no plan for what was found good: %v", err)
		}
		if err != nil && (len(err.Error()) > 1000 || !utf8.ValidString(err.Error())) {
			t.Errorf("%d bytes of text: %.200q", len(err.Error()), err)
		}
	})
}
