package access

import (
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"

	telev1 "github.com/telerun/tele/proto/tele/v1"
)

var (
	anyRole = []Role{Admin, User, Viewer}
	doers   = []Role{Admin, User}
	admins  = []Role{Admin}
)

// rights is the one table of who may call what. A method that is not in it is denied to all. It
// says nothing about whose job it is: Identity.Sees and Identity.Controls do.
var rights = map[string][]Role{
	telev1.JobService_Start_FullMethodName:        doers,
	telev1.JobService_Get_FullMethodName:          anyRole,
	telev1.JobService_List_FullMethodName:         anyRole,
	telev1.JobService_Stop_FullMethodName:         doers,
	telev1.JobService_Signal_FullMethodName:       doers,
	telev1.JobService_Exec_FullMethodName:         doers,
	telev1.JobService_Resize_FullMethodName:       doers,
	telev1.JobService_Pause_FullMethodName:        doers,
	telev1.JobService_Resume_FullMethodName:       doers,
	telev1.JobService_Update_FullMethodName:       doers,
	telev1.JobService_WriteInput_FullMethodName:   doers,
	telev1.JobService_Wait_FullMethodName:         anyRole,
	telev1.JobService_Watch_FullMethodName:        anyRole,
	telev1.JobService_StreamOutput_FullMethodName: anyRole,
	telev1.JobService_Remove_FullMethodName:       doers,
	telev1.JobService_Prune_FullMethodName:        doers,
	telev1.JobService_Diff_FullMethodName:         anyRole,
	telev1.JobService_StreamFiles_FullMethodName:  anyRole,
	telev1.JobService_ListTimings_FullMethodName:  admins, // of everybody's jobs

	healthv1.Health_Check_FullMethodName: anyRole,
	healthv1.Health_List_FullMethodName:  anyRole,
	healthv1.Health_Watch_FullMethodName: anyRole,

	// The API is public; its description gives nothing away. Tools still ask by the older name.
	reflectionv1.ServerReflection_ServerReflectionInfo_FullMethodName: anyRole,
	"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo":  anyRole,
}
