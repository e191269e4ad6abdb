package initproc

var triedHere []probed

func entryPoints() []probed { return nil }

func probeEntryPoints() {}
