// Package server is `tele serve`: the listeners, who may call, the methods of tele.v1, and what is
// logged. The jobs themselves are in server/job.
package server

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"github.com/rs/zerolog"
	"github.com/telerun/tele/limits/cgroup"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"github.com/telerun/tele/server/access"
	"github.com/telerun/tele/server/doctor"
	"github.com/telerun/tele/server/job"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
)

// Command is `tele serve`.
type Command struct {
	Addr             string          `help:"Where to listen, HOST:PORT or unix:/path; beside it always on tele.sock in the state directory." default:"127.0.0.1:50051" env:"TELE_ADDR"`
	StateDir         string          `help:"Where jobs, their output and the certificates are kept (default: ${state_dir})." env:"TELE_STATE_DIR" type:"path" placeholder:"DIR"`
	Config           kong.ConfigFlag `help:"JSON file with these settings, like {\"max_jobs\": 10}." placeholder:"FILE"`
	CertHosts        []string        `help:"Further names and addresses that the server's certificate is good for." placeholder:"HOST"`
	Hide             []string        `help:"Directories of this machine that jobs see empty; the state directory is always one." default:"${hide}" placeholder:"DIR"`
	AllowHostNetwork bool            `help:"Let jobs of every role use this machine's network (tele run --net host)."`
	Allow            Policy          `help:"What jobs may have of this machine, by role: host_network, roots, mounts, users (docs/SANDBOX.md). JSON, or the same in the configuration file." placeholder:"JSON"`
	UIDRange         string          `name:"uid-range" help:"Ids of the users that jobs run as, each one job's alone; nobody's else (default: ${uid_range})." placeholder:"FIRST:COUNT"`
	MaxJobs          int             `help:"Running jobs that one client may have." default:"10000"`
	Work             string          `help:"Where the work directories of jobs are: auto (quota where the state directory's disk enforces project quotas, tmpfs elsewhere), quota, tmpfs (in memory, gone with the job), or disk (without a limit)." enum:"auto,quota,tmpfs,disk" default:"auto" env:"TELE_WORK" group:"Limits"`
	Warm             int             `help:"Sandboxes that are kept ready for jobs to come; 0 is none." default:"4" env:"TELE_WARM"`
	Max              Maxima          `embed:"" prefix:"max-" group:"Limits"`
	Keep             Keeping         `embed:"" prefix:"keep-" group:"Retention"`
	WhenFull         string          `help:"What happens to a job whose output finds no room: it waits, or stops." enum:"wait,stop" default:"wait" group:"Retention"`
	StopJobsOnExit   bool            `help:"Stop all jobs when the server ends. Otherwise they go on, and the next server takes them over."`
	MaxStreams       int             `help:"Output streams that one client may have open." default:"1000"`
	MaxConnections   int             `help:"Connections that one client may have open." default:"1000"`
	MaxRate          int             `help:"Calls a second that one client may make, and twice as many at once." default:"5000"`
}

// DefaultHide are the places that are nobody's business in a job: what people, services and the
// kernel keep there.
const DefaultHide = "/boot,/lost+found,/media,/root,/run,/srv,/sys,/var/backups,/var/crash,/var/lib/containerd,/var/lib/docker," +
	"/var/lib/kubelet,/var/lib/private,/var/log,/var/mail,/var/run,/var/spool"

// Run serves until SIGINT or SIGTERM.
func (c *Command) Run() error {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	log := newLogger()
	if err := dropCapabilities(); err != nil {
		log.Warn().Err(err).Msg("the server keeps all of root's capabilities")
	}
	return c.Serve(ctx, log)
}

// newLogger logs to stderr: for people on a terminal, JSON elsewhere; LOG_LEVEL says how much.
func newLogger() zerolog.Logger {
	level, err := zerolog.ParseLevel(strings.ToLower(os.Getenv("LOG_LEVEL")))
	if err != nil || level == zerolog.NoLevel {
		level = zerolog.InfoLevel
	}
	var logger zerolog.Logger
	if _, err := unix.IoctlGetTermios(2, unix.TCGETS); err == nil {
		logger = zerolog.New(zerolog.ConsoleWriter{Out: os.Stderr, TimeFormat: time.TimeOnly,
			NoColor: os.Getenv("NO_COLOR") != ""})
	} else {
		logger = zerolog.New(os.Stderr)
	}
	return logger.Level(level).With().Timestamp().Logger()
}

// Serve serves until ctx ends. The jobs go on without it, or with StopJobsOnExit are stopped.
func (c *Command) Serve(ctx context.Context, log zerolog.Logger) (err error) {
	unix.Umask(0o077)
	state := c.StateDir
	if state == "" {
		state = access.DefaultStateDir()
	}
	if state, err = filepath.Abs(state); err != nil {
		return err
	}
	most, mostOutput, mostWork, err := c.Max.parse()
	if err != nil {
		return err
	}
	keep, err := c.Keep.parse()
	if err != nil {
		return err
	}
	policy, err := c.policy()
	if err != nil {
		return err
	}
	firstUID, uids, err := parseUIDRange(c.UIDRange)
	if err != nil {
		return err
	}
	lock, err := job.OpenStateDir(state)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := access.EnsurePKI(state, append(c.CertHosts, host(c.Addr)...)); err != nil {
		return err
	}
	groups, err := cgroup.Open(cgroup.Options{Name: fmt.Sprintf("tele-%.4x", sha256.Sum256([]byte(state)))})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, groups.Close()) }()
	table, err := job.Open(job.Options{StateDir: state, Cgroups: groups, MaxJobs: c.MaxJobs, Files: jobFiles(), Most: most,
		MostOutput: mostOutput, Work: job.Work(c.Work), Warm: c.Warm, MostWork: mostWork, FirstUID: firstUID, UIDs: uids, StopWhenFull: c.WhenFull == "stop", Retention: keep, Hide: c.Hide, Log: log})
	if err != nil {
		return err
	}
	defer c.end(table)
	door := c.newDoor()
	server, err := c.newServer(state, door, table, policy, log)
	if err != nil {
		return err
	}
	return c.listen(ctx, state, door, server, groups, table, log)
}

// policy is --allow, with what --allow-host-network adds.
func (c *Command) policy() (Policy, error) {
	all := Policy{}
	for role, grant := range c.Allow {
		all[role] = grant
	}
	if c.AllowHostNetwork {
		for _, role := range grantees {
			grant := all[role]
			grant.HostNetwork = true
			all[role] = grant
		}
	}
	return all, all.check()
}

// end is the end of the server for the jobs.
func (c *Command) end(table *job.Table) {
	if c.StopJobsOnExit {
		table.Stop()
	} else {
		table.Leave()
	}
}

// listenAt listens on HOST:PORT, or unix:/path.
func listenAt(addr string) (net.Listener, error) {
	if path, found := strings.CutPrefix(addr, "unix:"); found {
		return access.ListenUnix(path)
	}
	return net.Listen("tcp", addr)
}

// host is the name in an address that a certificate must be good for.
func host(addr string) []string {
	if name, _, err := net.SplitHostPort(addr); err == nil && name != "" && !strings.HasPrefix(addr, "unix:") {
		return []string{name}
	}
	return nil
}

func (c *Command) newServer(state string, door *access.Door, table *job.Table, policy Policy,
	log zerolog.Logger) (*grpc.Server, error) {
	tls, err := access.ServerTLS(access.CertDir(state), func(err error) {
		log.Err(err).Msg("certificates changed")
	})
	if err != nil {
		return nil, err
	}
	guard := &access.Guard{Rate: access.NewRate(c.MaxRate)}
	server := grpc.NewServer(append(c.doorOptions(),
		grpc.Creds(door.Credentials(tls)), grpc.StatsHandler(door.Intake()),
		grpc.ChainUnaryInterceptor(shortenUnary, guard.Unary),
		grpc.ChainStreamInterceptor(shortenStream, guard.Stream))...)
	telev1.RegisterJobServiceServer(server, &service{table: table, policy: policy,
		streams: access.NewCounter(c.MaxStreams), large: make(chan struct{}, maxLarge)})
	healthv1.RegisterHealthServer(server, health.NewServer())
	registerReflection(server)
	return server, nil
}

// listen serves on both listeners and ends with the jobs before the connections, so that everybody
// hears of it.
func (c *Command) listen(ctx context.Context, state string, door *access.Door, server *grpc.Server, groups *cgroup.Manager,
	table *job.Table, log zerolog.Logger) error {
	socket := filepath.Join(state, "tele.sock")
	unixListener, err := access.ListenUnix(socket)
	if err != nil {
		return err
	}
	listener, err := listenAt(c.Addr)
	if err != nil {
		_ = unixListener.Close() // nothing came in
		return fmt.Errorf("listen on %s: %w (is another server running? tele serve --addr chooses another address)", c.Addr, err)
	}
	log.Info().Str("addr", listener.Addr().String()).Str("socket", socket).Msg("listening")
	log.Info().Str("layout", groups.Layout()).Msg("cgroups")
	for _, line := range groups.Notes() {
		log.Info().Msg(line)
	}
	log.Info().Str("where", table.ExplainWork()).Msg("work directories")
	for _, line := range limitations(groups) {
		log.Warn().Msg(line)
	}
	failed := make(chan error, 2)
	for _, l := range []net.Listener{listener, unixListener} {
		go func() { failed <- server.Serve(door.Listen(l)) }()
	}
	manager := takeNotifier()
	if err := manager.ready("listening on " + listener.Addr().String()); err != nil {
		log.Warn().Err(err).Msg("nobody knows that this server is ready")
	}
	checkUp(state, groups, log)
	select {
	case err = <-failed:
	case <-ctx.Done():
		if c.StopJobsOnExit {
			log.Info().Msg("shutting down: stopping all jobs")
		} else {
			log.Info().Msg("shutting down: jobs go on, the next server takes them over")
		}
	}
	// Nobody to hear it is as good: the server ends all the same.
	_ = manager.stopping("shutting down")
	c.end(table)
	timer := time.AfterFunc(time.Second, server.Stop)
	server.GracefulStop()
	timer.Stop()
	return err
}

// checkUp looks at the machine as tele doctor does, without its probes, and says the outcome in a line.
func checkUp(state string, groups *cgroup.Manager, log zerolog.Logger) {
	report := doctor.Look(state, groups)
	event := log.Info()
	if failed := report.Names(doctor.Fail); failed != "" {
		event = log.Warn().Str("fail", failed)
	}
	event.Str("outcome", report.Summary()).Msg("looked at this machine; tele doctor says more, and proves the walls")
}

// limitations are what this server cannot do here, a line each.
func limitations(groups *cgroup.Manager) []string {
	list := groups.Explain()
	if groups.Layout() == "none" {
		list = append(list, "limits are not enforced: there is no cgroup for this server")
	}
	if os.Geteuid() != 0 {
		list = append(list, "not root: jobs run in a user namespace as this user, not as users of their own")
	}
	return list
}
