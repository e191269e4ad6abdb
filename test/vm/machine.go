package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/telerun/tele/test/vm/internal/spec"
)

// A machine is one virtual machine: QEMU, and the virtiofsd that shares the root with it. Both die
// with this process, however it ends.
type machine struct {
	dir       string // temporary files
	virtiofsd *exec.Cmd
	qemu      *exec.Cmd
	result    *os.File      // what comes from spec.Port
	gone      chan struct{} // closed when virtiofsd has ended
}

// startMachine boots. The caller must call stop.
func startMachine(dir string, o options, k kernel, virtiofsd string) (*machine, error) {
	m := &machine{dir: dir, gone: make(chan struct{})}
	if err := m.startVirtiofsd(virtiofsd); err != nil {
		return nil, fmt.Errorf("start %s: %w", virtiofsd, err)
	}
	if err := m.startQemu(qemuArgs(dir, o, k)); err != nil {
		m.virtiofsd.Process.Kill()
		m.virtiofsd.Wait()
		return nil, fmt.Errorf("start %s: %w", qemuCommand, err)
	}
	// Without virtiofsd, the guest hangs in its next read of a file: QEMU goes with it.
	go func() {
		defer close(m.gone)
		m.virtiofsd.Wait()
		m.qemu.Process.Kill()
	}()
	return m, nil
}

// errBoot is that a machine has not come as far as the command.
var errBoot = errors.New("the machine hangs, and has not started the command")

// errHangs is that a machine stopped below the command, which may be why.
var errHangs = errors.New("the machine hangs, and the command with it")

// run copies the command's output to stdout until it has ended, and returns its exit code. It takes a
// machine to hang that says nothing for that long: one boots within seconds, and speaks every spec.Beat
// from then on.
func (m *machine) run(ctx context.Context, silence time.Duration, stdout io.Writer) (int, error) {
	// With QEMU ends the stream from it.
	defer context.AfterFunc(ctx, func() { m.qemu.Process.Kill() })()
	code, err := spec.Receive(&impatient{m.result, silence, false}, stdout)
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return code, err
}

// An impatient reader gives up when nothing comes for a while.
type impatient struct {
	file    *os.File
	silence time.Duration
	heard   bool // something has come
}

func (r *impatient) Read(p []byte) (int, error) {
	if err := r.file.SetReadDeadline(time.Now().Add(r.silence)); err != nil {
		return 0, err
	}
	n, err := r.file.Read(p)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = errBoot
		if r.heard {
			err = errHangs
		}
		err = fmt.Errorf("%w; nothing came from it for %v, see --silence", err, r.silence)
	}
	r.heard = r.heard || n > 0
	return n, err
}

// stop ends the machine; when it returns, no process of it is left.
func (m *machine) stop() {
	m.qemu.Process.Kill()
	m.qemu.Wait()
	m.virtiofsd.Process.Kill()
	<-m.gone
	m.result.Close()
}

func (m *machine) startVirtiofsd(path string) error {
	address := &net.UnixAddr{Name: filepath.Join(m.dir, "fs.sock"), Net: "unix"}
	listener, err := net.ListenUnix("unix", address)
	if err != nil {
		return err
	}
	listener.SetUnlinkOnClose(false)
	// Ours must go: should virtiofsd end before it accepts, QEMU is to be refused, not to wait.
	defer listener.Close()
	socket, err := listener.File()
	if err != nil {
		return err
	}
	defer socket.Close()
	m.virtiofsd = exec.Command(path, virtiofsdArgs(path)...)
	return m.start(m.virtiofsd, socket, "virtiofsd.log")
}

func (m *machine) startQemu(args []string) error {
	result, writer, err := os.Pipe()
	if err != nil {
		return err
	}
	defer writer.Close()
	m.result = result
	m.qemu = exec.Command(qemuCommand, args...)
	return m.start(m.qemu, writer, "qemu.log")
}

// start starts a process with one file as descriptor 3. It dies with this process (its parent, to
// the kernel, is the thread that starts it: main stays on its first), and a terminal's Ctrl-C does
// not reach it directly.
func (m *machine) start(cmd *exec.Cmd, fd3 *os.File, log string) error {
	file, err := os.Create(filepath.Join(m.dir, log))
	if err != nil {
		return err
	}
	defer file.Close()
	cmd.Stdout, cmd.Stderr = file, file
	cmd.ExtraFiles = []*os.File{fd3}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	return cmd.Start()
}
