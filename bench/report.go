package main

import (
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"
)

//go:embed performance.md.tmpl
var page string

// write makes PERFORMANCE.md and the charts that it shows.
func (r *Results) write(docs string) error {
	charts := filepath.Join(docs, "perf")
	if err := os.MkdirAll(charts, 0o755); err != nil {
		return err
	}
	if err := r.charts(charts); err != nil {
		return err
	}
	parsed, err := template.New("page").Funcs(template.FuncMap{
		"number": number,
		"cell":   func(text string) string { return strings.ReplaceAll(text, "|", `\|`) },
	}).Parse(page)
	if err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(docs, "PERFORMANCE.md"))
	if err != nil {
		return err
	}
	if err := parsed.Execute(f, r); err != nil {
		_ = f.Close() // the first error is the one to tell
		return err
	}
	return f.Close()
}

// number is a value with as many digits as mean something.
func number(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

func (r *Results) charts(dir string) error {
	for file, t := range map[string]Table{
		"launch.svg": r.BackToBack, "spaced.svg": r.Spaced, "command.svg": r.Commands,
	} {
		if len(t.Rows) == 0 {
			continue
		}
		var all []bar
		for _, row := range t.Rows {
			all = append(all, bar{row.Name, row.P50, number(row.P50) + "  (p99 " + number(row.P99) + ")"})
		}
		if err := bars(filepath.Join(dir, file), "Launch and wait, "+t.Title+": median, ms", "ms", all); err != nil {
			return err
		}
	}
	for file, amounts := range map[string][]Amount{"memory.svg": r.Memory, "output.svg": r.Output} {
		if len(amounts) == 0 {
			continue
		}
		var all []bar
		for _, a := range amounts {
			all = append(all, bar{a.Name, a.Value, number(a.Value)})
		}
		title := map[string]string{"memory.svg": "Memory a job beyond the job, KiB PSS", "output.svg": "Output, MB/s"}[file]
		if err := bars(filepath.Join(dir, file), title, amounts[0].Unit, all); err != nil {
			return err
		}
	}
	return r.callersChart(filepath.Join(dir, "callers.svg"))
}

// CallerRates are the launches a second of each contender, by the number of callers.
func (r *Results) CallerRates() (names []string, rates map[string][]float64) {
	rates = map[string][]float64{}
	for _, t := range r.Callers {
		for _, row := range t.Rows {
			if !slices.Contains(names, row.Name) {
				names = append(names, row.Name)
			}
			rates[row.Name] = append(rates[row.Name], row.PerSecond)
		}
	}
	return names, rates
}

// A CallerRow is one contender's line of the table of callers.
type CallerRow struct {
	Name  string
	Rates []float64
	P99   float64 // with most callers
}

// CallerRows are the lines of the table of callers.
func (r *Results) CallerRows() (rows []CallerRow) {
	names, rates := r.CallerRates()
	for _, name := range names {
		row := CallerRow{Name: name, Rates: rates[name]}
		for _, last := range r.Callers[len(r.Callers)-1].Rows {
			if last.Name == name {
				row.P99 = last.P99
			}
		}
		rows = append(rows, row)
	}
	return rows
}

func (r *Results) callersChart(path string) error {
	if len(r.Callers) == 0 {
		return nil
	}
	names, rates := r.CallerRates()
	shown := []string{nameBare, nameFull, nameTemplate, nameWarm, nameCold, namePlain, nameSame, "crun", "runc"}
	names = slices.DeleteFunc(shown, func(name string) bool { return !slices.Contains(names, name) })
	return lines(path, "Launches a second, by the number of callers", "callers", "launches a second", callerCounts, names, rates)
}
