package main

import (
	"slices"
	"time"
)

// scale is what many ended jobs do to a server's start and to a list of all.
func (b *bench) scale() error {
	jobs := b.many(10000, 200)
	s, err := b.serve("scale", b.cold.flags...)
	if err != nil {
		return err
	}
	defer s.stop()
	if _, err := s.run(jobs, 8); err != nil {
		return err
	}
	var starts []float64
	for range b.many(3, 1) {
		s.stop()
		began := time.Now()
		if err := s.start(); err != nil {
			return err
		}
		starts = append(starts, time.Since(began).Seconds()*1000)
	}
	slices.Sort(starts)
	l, err := startLimit(b.limit, []string{"HOME=/root", "TELE_STATE_DIR=" + s.dir}, "exec", b.tele, "status", "--addr", s.socket())
	if err != nil {
		return err
	}
	defer l.close()
	var status samples
	got, err := l.run(b.many(20, 3), 1)
	if err != nil {
		return err
	}
	status.add(got)
	start, list := quantile(starts, 0.5), status.row("").P50
	b.results.Scale = []Amount{
		{"ended jobs", float64(jobs), ""},
		{"server, from exec to its first answer", start, "ms"},
		{"tele status", list, "ms"},
		{"the server's memory afterwards, PSS", pss(s.cmd.Process.Pid) / 1024, "MiB"},
	}
	b.results.goal("10,000 ended jobs: server start, ms", "< 1000", "", Ratio{Value: start})
	b.results.goal("10,000 ended jobs: tele status, ms", "< 100", "", Ratio{Value: list})
	return nil
}
