// Package files is how files get into a job and out of it: as a tar stream, which one side packs and the other
// unpacks. One of the two is a client, the other the agent, which runs in the job's sandbox (agent.go).
//
// Pack writes a file, or a directory with all that is in it; Unpack makes them again:
//
//	err := files.Pack(w, "/home/job/out", warn)
//	err := files.Unpack(r, files.Place{Path: ".", Name: files.Name("/home/job/out")}, warn)
//
// Modes, times of files and directories in nanoseconds, symbolic and hard links, empty directories and holes
// are kept; who unpacks owns what there is. Devices, FIFOs and sockets are left out with a warning.
//
// The stream is POSIX's pax format, a file with holes in it in the form that GNU tar calls sparse 1.0, and
// ends with two blocks of zeros: one that ends without them was cut off, and that is an error. Whoever wrote
// a stream may have meant harm. Nothing is written outside of the place that it is unpacked to, through no
// link and by no name; nothing is written into a file that is there: a file is whole when it gets its name.
package files
