package initproc

var triedHere, entryPoints []probed

func probeEntryPoints() {}
