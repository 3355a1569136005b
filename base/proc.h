#ifndef TH_BASE_PROC_H
#define TH_BASE_PROC_H
/* Child processes: started through posix_spawn/clone, never a shell. */
#include "base/buf.h"
#include "base/err.h"
#include <sys/types.h>

struct th_proc_opts {
    const char *const *argv;            /* NULL-terminated; argv[0] is looked up in PATH */
    const char *const *env;             /* NULL: inherit */
    const char *cwd;                    /* NULL: inherit */
    int stdin_fd, stdout_fd, stderr_fd; /* -1: /dev/null for stdin, inherit for the others */
    const int *keep_fds;                /* further descriptors, kept at keep_as[i] */
    const int *keep_as;
    size_t n_keep;
    bool new_session;     /* setsid */
    bool die_with_parent; /* PR_SET_PDEATHSIG SIGKILL */
};
/* Starts; returns the pid, or negative (TH_R_NO_TOOL when the program is not there). */
pid_t th_proc_start(const struct th_proc_opts *opts, struct th_err *err);
/* Waits until it ends; *ret_status as waitpid. timeout_ms < 0: for ever; on timeout the process is
 * killed and -TH_R_TIMEOUT returned. */
int th_proc_wait(pid_t pid, int64_t timeout_ms, int *ret_status, struct th_err *err);
/* Runs to the end with stdin from `in` (may be empty) and gathers stdout and stderr (each may be
 * NULL, then dropped; the same buffer may be given for both). Non-zero exit is TH_R_INTERNAL with
 * the last line of stderr in the message; *ret_exit (may be NULL) has the exit code, or 128+signal.
 */
int th_proc_run(const struct th_proc_opts *opts, struct th_str in, struct th_buf *out,
                struct th_buf *errout, int64_t timeout_ms, int *ret_exit, struct th_err *err);
/* Convenience for the common case: th_proc_runl(&out, 5000, &err, "crun", "--version", NULL). */
int th_proc_runl(struct th_buf *out, int64_t timeout_ms, struct th_err *err, const char *arg0, ...)
    __attribute__((sentinel));
int th_proc_pidfd(pid_t pid);            /* pidfd_open, CLOEXEC; -1 and errno */
char *th_proc_find(const char *program); /* absolute path in PATH, or NULL; caller frees */
/* Start time of a process in clock ticks after boot (field 22 of /proc/PID/stat): with the pid it
 * names a process for good. 0 when it does not exist. */
uint64_t th_proc_start_ticks(pid_t pid);
#endif
