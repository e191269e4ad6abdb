package main

import (
	"hash/fnv"
	"math/rand/v2"
	"time"
)

// A chance makes one actor's choices. Each actor has its own, named by what it is, so that what it
// chooses does not hang on who of the others was faster.
type chance struct{ *rand.Rand }

func newChance(seed uint64, actor string) chance {
	h := fnv.New64a()
	_, _ = h.Write([]byte(actor)) // never fails
	return chance{rand.New(rand.NewPCG(seed, h.Sum64()))}
}

// in is true in so many cases of a hundred.
func (c chance) in(percent int) bool { return c.IntN(100) < percent }

// between is a number from low to high.
func (c chance) between(low, high int) int { return low + c.IntN(high-low+1) }

// ms is a time of so many milliseconds.
func (c chance) ms(low, high int) time.Duration {
	return time.Duration(c.between(low, high)) * time.Millisecond
}
