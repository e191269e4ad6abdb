//go:build race

package server

// bloat is how many times the memory a server takes with the race detector.
const bloat = 5
