package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	telev1 "github.com/telerun/tele/proto/tele/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Timings is `tele doctor --timing`: the part of the doctor that asks a server.
type Timings struct {
	Connection
	Output string `short:"o" help:"text or json." enum:"text,json" default:"text"`
	Timing bool   `help:"Look at no machine: ask the server how long its last starts took, step by step. For administrators." xor:"what"`
}

// ShowTimings shows them.
func (t *Timings) ShowTimings(ctx context.Context, streams Streams) error {
	c, err := t.dial(ctx, streams)
	if err != nil {
		return err
	}
	r, err := c.Timings(ctx)
	if status.Code(err) == codes.Unimplemented {
		return errors.New("this server is older and does not say how long starts take")
	}
	if err != nil {
		return err
	}
	if t.Output == "json" {
		return printTimingsJSON(streams.Out, r)
	}
	_, err = io.WriteString(streams.Out, timingsText(r, time.Now()))
	return err
}

// timingsText is a table for each way to start, the slowest starts, and what is known to be slow here.
func timingsText(r *telev1.ListTimingsResponse, now time.Time) string {
	var text strings.Builder
	if len(r.Timings) == 0 {
		text.WriteString("no start since the server began\n")
	} else {
		fmt.Fprintf(&text, "%s, the first %s ago; ms\n", number(len(r.Timings), "start"),
			age(now.Sub(r.Timings[0].BeganAt.AsTime())))
	}
	for _, way := range []string{wayWarm, wayTemplate, wayNothing} {
		list := slices.DeleteFunc(slices.Clone(r.Timings), func(t *telev1.Timing) bool { return wayOf(t) != way })
		if len(list) > 0 {
			fmt.Fprintf(&text, "\n%s: %s\n", way, number(len(list), "start"))
			writeSteps(&text, list)
		}
	}
	writeSlowest(&text, r.Timings, now)
	if hints := timingHints(r); len(hints) > 0 {
		text.WriteString("\n- " + strings.Join(hints, "\n- ") + "\n")
	}
	return text.String()
}

// The ways to start, as tables name them.
const (
	wayWarm     = "warm"
	wayTemplate = "cold"
	wayNothing  = "cold, no template"
)

func wayOf(t *telev1.Timing) string {
	switch {
	case t.Cold == "":
		return wayWarm
	case t.Template:
		return wayTemplate
	}
	return wayNothing
}

func number(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// A step is what one took by itself.
type step struct {
	name string
	took time.Duration
}

// stepsOf are the steps of a start, and what they took together.
func stepsOf(t *telev1.Timing) (steps []step, total time.Duration) {
	for _, m := range t.Marks {
		after := m.After.AsDuration()
		steps = append(steps, step{m.Step, after - total})
		total = after
	}
	return steps, total
}

// writeSteps is a line for each step, in the order in which they are done, and one for the whole.
func writeSteps(out io.Writer, list []*telev1.Timing) {
	const whole = "all of it"
	var names []string
	took := map[string][]time.Duration{}
	for _, t := range list {
		steps, total := stepsOf(t)
		for _, s := range steps {
			if took[s.name] == nil {
				names = append(names, s.name)
			}
			took[s.name] = append(took[s.name], s.took)
		}
		took[whole] = append(took[whole], total)
	}
	fmt.Fprintf(out, "  %-20s %6s %8s %8s %8s %8s\n", "STEP", "COUNT", "P50", "P90", "P99", "MAX")
	for _, name := range append(names, whole) {
		all := took[name]
		slices.Sort(all)
		fmt.Fprintf(out, "  %-20s %6d %8.2f %8.2f %8.2f %8.2f\n", shorten(printable(name), 20), len(all),
			ms(percentile(all, 50)), ms(percentile(all, 90)), ms(percentile(all, 99)), ms(all[len(all)-1]))
	}
}

// percentile is the smallest of sorted that p percent of it are not above.
func percentile(sorted []time.Duration, p int) time.Duration {
	return sorted[(len(sorted)*p+99)/100-1]
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// slowestShown is how many of the slowest starts are named.
const slowestShown = 5

func writeSlowest(out io.Writer, list []*telev1.Timing, now time.Time) {
	if len(list) == 0 {
		return
	}
	total := func(t *telev1.Timing) time.Duration { _, total := stepsOf(t); return total }
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b *telev1.Timing) int { return int(total(b) - total(a)) })
	fmt.Fprintf(out, "\nthe slowest\n  %-12s %4s  %-17s %8s  %s\n", "JOB", "AGE", "WAY", "ALL", "SLOWEST STEP")
	for _, t := range list[:min(len(list), slowestShown)] {
		var slowest step
		steps, all := stepsOf(t)
		for _, s := range steps {
			if s.took > slowest.took {
				slowest = s
			}
		}
		fmt.Fprintf(out, "  %-12s %4s  %-17s %8.2f  %.2f %s\n", t.JobId, age(now.Sub(t.BeganAt.AsTime())), wayOf(t),
			ms(all), ms(slowest.took), shorten(printable(slowest.name), 20))
	}
}

// timingHints is what makes starts slow on this server, and what to do, in lines of 80 columns.
func timingHints(r *telev1.ListTimingsResponse) (hints []string) {
	cold := map[string]int{}
	nothing := 0
	for _, t := range r.Timings {
		if !t.Template && (t.Cold == "off" || t.Cold == "none_ready") {
			nothing++ // without a template nothing is made ready
		} else {
			cold[t.Cold]++
		}
	}
	if !r.EarlyEntry {
		hints = append(hints, "inits start from the package hook, which takes each cold start some ms:\n"+
			"  a program made by make build starts them before the Go runtime")
	}
	if r.Warm == 0 {
		hints = append(hints, "no sandboxes are kept ready: tele serve --warm N keeps N, as root and with\n"+
			"  work directories in memory")
	}
	if n := cold["none_ready"]; n > 0 {
		hints = append(hints, fmt.Sprintf("%s found no sandbox ready: they came faster than those are made,\n"+
			"  or memory is short; %d of %d are ready now (tele serve --warm N)", number(n, "start"), r.WarmReady, r.Warm))
	}
	if n := cold["asks_more"]; n > 0 {
		hints = append(hints, fmt.Sprintf("%s asked for what sandboxes that are ready have not: a root,\n"+
			"  mounts, a user or this machine's network", number(n, "start")))
	}
	if nothing > 0 {
		hints = append(hints, fmt.Sprintf("%s had no template, without which no sandbox is ready: mounts of\n"+
			"  the machine had just changed, or it cannot be made (see the server's log)", number(nothing, "start")))
	}
	return hints
}

// A timingJSON is a start as scripts see it. Names stay as they are, and all are always there.
type timingJSON struct {
	JobID    string     `json:"job_id"`
	BeganAt  *time.Time `json:"began_at"`
	Cold     string     `json:"cold"`
	Template bool       `json:"template"`
	Marks    []markJSON `json:"marks"`
}

type markJSON struct {
	Step      string `json:"step"`
	AfterUsec int64  `json:"after_usec"`
}

func printTimingsJSON(out io.Writer, r *telev1.ListTimingsResponse) error {
	list := []timingJSON{}
	for _, t := range r.Timings {
		marks := []markJSON{}
		for _, m := range t.Marks {
			marks = append(marks, markJSON{m.Step, m.After.AsDuration().Microseconds()})
		}
		list = append(list, timingJSON{t.JobId, instant(t.BeganAt), t.Cold, t.Template, marks})
	}
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(struct {
		EarlyEntry bool         `json:"early_entry"`
		Warm       uint32       `json:"warm"`
		WarmReady  uint32       `json:"warm_ready"`
		Starts     []timingJSON `json:"starts"`
	}{r.EarlyEntry, r.Warm, r.WarmReady, list})
}
