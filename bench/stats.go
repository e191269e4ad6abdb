package main

import (
	"math/rand/v2"
	"slices"
	"time"
)

// A batch is launches one after another, by one caller or several.
type batch struct {
	times []time.Duration
	total time.Duration
}

// samples are all batches of one row.
type samples struct {
	times    []float64 // milliseconds
	launches int
	total    time.Duration
}

func (s *samples) add(b batch) {
	for _, t := range b.times {
		s.times = append(s.times, t.Seconds()*1000)
	}
	s.launches += len(b.times)
	s.total += b.total
}

// A Row is what one contestant needed, in milliseconds, and how many launches it made in a second.
type Row struct {
	Name          string
	N             int
	P50, P90, P99 float64
	PerSecond     float64
}

func (s *samples) row(name string) Row {
	sorted := slices.Sorted(slices.Values(s.times))
	r := Row{Name: name, N: len(sorted), P50: quantile(sorted, 0.5), P90: quantile(sorted, 0.9), P99: quantile(sorted, 0.99)}
	if s.total > 0 {
		r.PerSecond = float64(s.launches) / s.total.Seconds()
	}
	return r
}

// quantile of sorted values: the smallest that is not below this part of them.
func quantile(sorted []float64, part float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	i := int(part * float64(len(sorted)))
	return sorted[min(i, len(sorted)-1)]
}

// A Ratio is of two quantiles, with the range that nineteen of twenty bootstrap samples are in.
type Ratio struct{ Value, Low, High float64 }

func ratio(above, below []float64, part float64) Ratio {
	if len(above) == 0 || len(below) == 0 {
		return Ratio{}
	}
	of := func(values []float64) float64 { return quantile(slices.Sorted(slices.Values(values)), part) }
	r := Ratio{Value: of(above) / of(below)}
	random := rand.New(rand.NewPCG(1, 2)) // the same data give the same range
	again := func(values []float64) []float64 {
		drawn := make([]float64, len(values))
		for i := range drawn {
			drawn[i] = values[random.IntN(len(values))]
		}
		return drawn
	}
	const draws = 400
	ratios := make([]float64, draws)
	for i := range ratios {
		ratios[i] = of(again(above)) / of(again(below))
	}
	slices.Sort(ratios)
	r.Low, r.High = quantile(ratios, 0.025), quantile(ratios, 0.975)
	return r
}

// of is a ratio of two single values.
func of(above, below float64) Ratio {
	if below == 0 {
		return Ratio{}
	}
	return Ratio{Value: above / below}
}
