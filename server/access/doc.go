// Package access says who may do what.
//
// Who: over TCP the client's certificate (mutual TLS 1.3), whose common name is the user and whose
// organisations are the roles; over a unix socket the kernel's word for who connected
// (SO_PEERCRED). What: one table of methods and roles, and the rule that a job belongs to the
// identity that started it.
//
// A server needs four calls, in this order:
//
//	err := access.EnsurePKI(stateDir, hosts)                  // certificates, made when missing
//	config, err := access.ServerTLS(access.CertDir(stateDir), nil)
//	guard := &access.Guard{}
//	s := grpc.NewServer(
//		grpc.Creds(access.Credentials(config)),           // TCP and unix listeners alike
//		grpc.ChainUnaryInterceptor(guard.Unary),
//		grpc.ChainStreamInterceptor(guard.Stream))
//
// The guard refuses a caller whom the table does not let in, with a message for people, and puts
// the Identity of everybody else into the context. A method then asks Identity.Sees before it
// shows a job, and Identity.Controls before it touches one; a job that the caller does not see
// does not exist for it (NotFound), and that answer is the method's to give.
//
// Names are the identity: a certificate for "root" and the local root are one user. Whoever holds
// ca.key can make any identity, so it is readable by its owner alone.
package access
