/* shareProcessNamespace: a process namespace that all containers of a pod are in.
 *
 * Network, IPC and UTS namespaces are held by mounts alone (sandbox.c); a process namespace ends
 * with its first process, so here there must be one. It is this program again, started as `node
 * pause`: it joins the sandbox's other namespaces, makes the new one, and leaves a child in it that
 * waits for children to bury. The child is what containers see as PID 1, so it has nothing worth
 * looking at: an empty root, no rights, a user of its own; its command line reads "/pause", as
 * upstream's does. It is in the control group of the conmons and in a session of its own, so that
 * the agent's end does not touch it.
 *
 *   <run>/ns/<uid>/pid        the namespace, for config.json
 *   <run>/ns/<uid>/pause.pid  the child; trusted only while that process is in that namespace
 *
 * When it ends, the kernel ends every container of the pod; the worker then makes a new sandbox. */
#include "base/io.h"
#include "base/log.h"
#include "base/proc.h"
#include "vm/node/agent.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define NOBODY 65535 /* as upstream's pause image */

/* ---- the program ---- */

static int join(const char *dir, const char *kind, int type)
{
    th_autofree char *path = th_path_join(dir, kind);
    th_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return errno == ENOENT ? 0 : -1; /* the node's own */
    }
    return setns(fd, type);
}

static void wait_for_ever(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    (void)sigprocmask(SIG_SETMASK, &set, NULL);
    for (;;) {
        int sig = sigwaitinfo(&set, NULL);
        if (sig == SIGTERM || sig == SIGINT) {
            _exit(0);
        }
        while (waitpid(-1, NULL, WNOHANG) > 0) {
        }
    }
}

static _Noreturn void first_process(const char *empty, int tell, char **argv, int argc)
{
    (void)setsid();
    (void)prctl(PR_SET_NAME, "pause");
    for (int i = 0; i < argc; i++) { /* the command line lies in argv, end to end */
        memset(argv[i], 0, strlen(argv[i]));
    }
    memcpy(argv[0], "/pause", 7); /* "/proc/self/exe" is longer */
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0 || chroot(empty) < 0 || chdir("/") < 0 ||
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || setgroups(0, NULL) < 0 ||
        setresgid(NOBODY, NOBODY, NOBODY) < 0 || setresuid(NOBODY, NOBODY, NOBODY) < 0) {
        _exit(1);
    }
    (void)!write(tell, "", 1);
    for (int fd = 0; fd < 3; fd++) {
        (void)dup2(null, fd);
    }
    close(tell);
    close(null);
    wait_for_ever();
    _exit(0);
}

static int make(int argc, char **argv, int all_argc, char **all_argv)
{
    if (argc != 3) {
        return 2;
    }
    th_autofree char *dir = th_xstrdup(argv[1]);
    th_autofree char *empty = th_xstrdup(argv[2]);
    int tell[2];
    if (join(dir, "net", CLONE_NEWNET) < 0 || join(dir, "ipc", CLONE_NEWIPC) < 0 ||
        join(dir, "uts", CLONE_NEWUTS) < 0 || unshare(CLONE_NEWPID) < 0 ||
        pipe2(tell, O_CLOEXEC) < 0) {
        (void)fprintf(stderr, "%s\n", strerror(errno));
        return 1;
    }
    pid_t pid = fork();
    if (pid == 0) {
        close(tell[0]);
        first_process(empty, tell[1], all_argv, all_argc);
    }
    close(tell[1]);
    char c;
    if (pid < 0 || read(tell[0], &c, 1) != 1) {
        (void)fprintf(stderr, "the first process of the pod did not start\n");
        return 1;
    }
    th_autofree char *target = th_path_join(dir, "pid");
    th_autofree char *source = th_xasprintf("/proc/%d/ns/pid", (int)pid);
    th_autoclose int fd = open(target, O_RDONLY | O_CREAT | O_CLOEXEC, 0444);
    if (fd < 0 || mount(source, target, NULL, MS_BIND, NULL) < 0) {
        (void)fprintf(stderr, "%s: %s\n", target, strerror(errno));
        (void)kill(pid, SIGKILL);
        return 1;
    }
    /* written here, so that an agent killed meanwhile leaves nothing that its successor cannot find */
    th_autofree char *file = th_path_join(dir, "pause.pid");
    th_autofree char *text = th_xasprintf("%d\n", (int)pid);
    if (th_io_write_atomic(file, text, strlen(text), 0600, NULL) < 0) {
        (void)kill(pid, SIGKILL);
        return 1;
    }
    return 0;
}

int pause_main(int argc, char **argv, int all_argc, char **all_argv)
{
    int r = make(argc, argv, all_argc, all_argv);
    (void)fflush(NULL);
    _exit(r); /* what runs at exit may want threads, which this process can have no more (its next child
               * would be in the new namespace) */
}

/* ---- the agent's side ---- */

/* The first process, or 0 when it is not there any more. */
static pid_t pause_pid(const char *dir)
{
    th_autofree char *file = th_path_join(dir, "pause.pid");
    th_autofree char *ns = th_path_join(dir, "pid");
    th_autobuf struct th_buf b = TH_BUF_INIT;
    struct stat mine, its;
    if (th_io_read_file(file, 32, &b, NULL) < 0) {
        return 0;
    }
    long pid = strtol(th_buf_cstr(&b), NULL, 10);
    th_autofree char *link = th_xasprintf("/proc/%ld/ns/pid", pid);
    bool same = pid > 1 && stat(ns, &mine) == 0 && stat(link, &its) == 0 &&
                mine.st_ino == its.st_ino && mine.st_dev == its.st_dev;
    return same ? (pid_t)pid : 0;
}

bool pod_shares_pids(const struct pod *p)
{
    return th_json_path_bool(p->obj, "spec.shareProcessNamespace", false) &&
           !th_json_path_bool(p->obj, "spec.hostPID", false);
}

bool pause_alive(const char *dir)
{
    return pause_pid(dir) > 0;
}

int pause_start(struct agent *a, const char *dir, struct th_err *err)
{
    th_autofree char *empty = th_path_join(a->o.run, "empty");
    th_autofree char *file = th_path_join(dir, "pause.pid");
    TH_TRY(th_io_mkdir_p(empty, 0555, err));
    const char *argv[] = {"/proc/self/exe", "node", "pause", dir, empty, NULL};
    struct th_proc_opts o = {.argv = argv, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1};
    th_autobuf struct th_buf pid = TH_BUF_INIT, errout = TH_BUF_INIT;
    int r = th_proc_run(&o, (struct th_str){0}, NULL, &errout, 10000, NULL, err);
    if (r < 0) {
        return th_wrap(err, "starting the pod's first process");
    }
    TH_TRY(th_io_read_file(file, 64, &pid, err));
    th_autofree char *procs = NULL;
    TH_AUTO_ERR struct th_err e = TH_ERR_INIT;
    if (cg_conmon_prepare(a, &procs, &e) < 0 ||
        (procs && th_io_write_file(procs, pid.p, pid.n, 0644, &e) < 0)) {
        th_warn(NODE_MOD, "pause stays in the agent's control group", "err=%s", th_log_q(e.msg));
    }
    return 0;
}

void pause_end(const char *dir)
{
    pid_t pid = pause_pid(dir);
    if (pid > 0) {
        (void)kill(pid, SIGKILL);
    }
    th_autofree char *file = th_path_join(dir, "pause.pid");
    (void)unlink(file);
}
