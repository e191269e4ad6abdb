package access

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// Certs is the command `tele certs`. The texts in the tags are what --help shows; a tag cannot be
// broken into lines.
type Certs struct {
	StateDir string `env:"TELE_STATE_DIR" type:"path" placeholder:"DIR" help:"State directory of the server (default: /var/lib/tele as root, else ~/.local/state/tele)."`

	Issue IssueCmd `cmd:"" help:"Issue a client certificate."`
	Show  ShowCmd  `cmd:"" help:"Show the certificates: whose, for what, until when."`
}

// Help is the long help of `tele certs`.
func (*Certs) Help() string {
	return `A client shows a certificate, and the server knows by it who calls: the common name is
the user, the organisation the role. The server's first start makes a CA, its own certificate
and an administrator's; these commands work on the same directory, as the same user. A running
server takes changes up by itself.`
}

func (c *Certs) stateDir() string {
	if c.StateDir == "" {
		return DefaultStateDir()
	}
	return c.StateDir
}

// IssueCmd is the command `tele certs issue`.
type IssueCmd struct {
	Name string `arg:"" help:"Whom it is for; jobs will belong to this name."`
	Role string `enum:"admin,user,viewer" default:"user" help:"What it may do: admin (all jobs), user (start jobs, and its own jobs), viewer (look at all jobs)."`
	Out  string `type:"path" default:"." placeholder:"DIR" help:"Directory for NAME.crt and NAME.key (default: the working directory)."`
	Days int    `default:"365" help:"Days until it expires."`
}

// Help is the long help of `tele certs issue`.
func (*IssueCmd) Help() string {
	return `Writes NAME.crt and NAME.key and replaces no file. The client needs both and the server's
ca.crt: hand them over by a way that nobody else reads. There is no way to take a certificate
back before it expires but a new CA, so give no more days than needed.`
}

// Run issues the certificate and says how to use it.
func (c *IssueCmd) Run(certs *Certs, out io.Writer) error {
	issued, err := Issue(certs.stateDir(), c.Name, Role(c.Role), c.Out, c.Days)
	if err != nil {
		return err
	}
	until := issued.NotAfter.Format(time.DateOnly)
	_, err = fmt.Fprintf(out, `%s is for %s, role %s, until %s.
The client needs these three files:
  %s
  %s
  %s
and names them by --ca, --cert and --key, by TELE_CA, TELE_CERT and TELE_KEY, or once for all with
tele context add.
`, issued.Cert, c.Name, c.Role, until, issued.CA, issued.Cert, issued.Key)
	return err
}

// ShowCmd is the command `tele certs show`.
type ShowCmd struct{}

// Run prints a table of the certificates.
func (*ShowCmd) Run(certs *Certs, out io.Writer) error {
	infos, bad := Show(certs.stateDir())
	if len(infos) == 0 {
		return bad
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	// Errors of the writes come back from Flush.
	_, _ = fmt.Fprintln(table, "FILE\tNAME\tUSE\tROLES\tEXPIRES\tSHA256")
	now := time.Now()
	for _, info := range infos {
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", info.File, printable(info.Name),
			info.Usage, joinRoles(info.Roles, ",", "-"), expiry(info.NotAfter, now), info.Fingerprint)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	return bad
}

// expiry says when, and how far off that is.
func expiry(at, now time.Time) string {
	date := at.UTC().Format(time.DateOnly)
	if !at.After(now) {
		return date + " (expired)"
	}
	switch days := int(at.Sub(now) / day); days {
	case 0:
		return date + " (within a day)"
	case 1:
		return date + " (1 day)"
	default:
		return fmt.Sprintf("%s (%d days)", date, days)
	}
}

// printable keeps a foreign certificate's name from steering the terminal.
func printable(name string) string {
	quoted := fmt.Sprintf("%q", name)
	if quoted[1:len(quoted)-1] == name {
		return name
	}
	return quoted
}
