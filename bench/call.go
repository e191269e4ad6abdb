package main

import (
	"context"
	"fmt"
	"net"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
)

// callName makes this program a server that does the least that there is to do: a call over gRPC with
// mutual TLS runs a command, with no sandbox around it and no record of it, and returns when it has ended.
// What tele takes beyond that is tele's.
const callName = "bench-call"

// A caller is the other side of such a server.
type caller struct {
	conn *grpc.ClientConn
	end  func()
}

// startCall starts a server that runs command, with the certificates in certs.
func startCall(certs, command string) (*caller, error) {
	config, err := tlsConfig(certs, "admin")
	if err != nil {
		return nil, err
	}
	at, end, err := startOther(callName, certs, command)
	if err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient(at, grpc.WithTransportCredentials(credentials.NewTLS(config)))
	if err != nil {
		end()
		return nil, err
	}
	return &caller{conn, end}, nil
}

func (c *caller) launch() error {
	_, err := healthv1.NewHealthClient(c.conn).Check(context.Background(), &healthv1.HealthCheckRequest{})
	return err
}

func (c *caller) close() {
	_ = c.conn.Close() // nothing is under way
	c.end()
}

// A calledCommand is the service, which has the shape of the one that every grpc has.
type calledCommand struct {
	healthv1.UnimplementedHealthServer
	path string
}

func (s calledCommand) Check(context.Context, *healthv1.HealthCheckRequest) (*healthv1.HealthCheckResponse, error) {
	pid, err := syscall.ForkExec(s.path, []string{s.path}, &syscall.ProcAttr{Env: []string{"PATH=/usr/bin:/bin"}})
	if err != nil {
		return nil, err
	}
	var status syscall.WaitStatus
	for err = syscall.EINTR; err == syscall.EINTR; {
		_, err = syscall.Wait4(pid, &status, 0, nil)
	}
	if err == nil && status != 0 {
		err = fmt.Errorf("%s: wait status %#x", s.path, status)
	}
	return &healthv1.HealthCheckResponse{}, err
}

// answerCalls is that process, and goes on until it cannot.
func answerCalls(args []string) error {
	certs, command := args[0], args[1]
	config, err := tlsConfig(certs, "server")
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr())
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(config)))
	healthv1.RegisterHealthServer(server, calledCommand{path: command})
	return server.Serve(listener)
}
