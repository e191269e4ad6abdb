//go:build !race

package server

const bloat = 1
