#ifndef TH_NODE_AGENT_H
#define TH_NODE_AGENT_H
/* What the files of the node agent share.
 *
 * Threads: the loop thread (struct th_ev: exits, probes, timers, signals), a few pod workers (one
 * pod at a time each, through the keyed queue), the API server's and informers' threads, and short
 * lived threads of lifecycle hooks. A struct pod says per field which of them owns it. Lock order:
 * agent.mu, then pod.mu; neither is held across anything that blocks. */
#include "base/evloop.h"
#include "base/hmap.h"
#include "base/io.h"
#include "base/json/json.h"
#include "base/workqueue.h"
#include "controlplane/client/client.h"
#include "images/content.h"
#include "vm/node/net/net.h"

#include <pthread.h>
#include <stdatomic.h>

#define NODE_MOD "node"

struct node_opts {
    char *name, *data, *run, *images_dir, *api_socket, *node_socket, *node_ip, *pod_cidr;
    char *cluster_dns, *cluster_domain, *log_dir, *ports_endpoint, *manifest_dir, *cgroup_parent;
    char *service_cidr;
    int profile_number;
    int ready_fd;
    int64_t max_pods, pod_pids;
};

/* ---- cgroups (cgroup.c) ---- */
enum cg_version { CG_NONE, CG_V1, CG_V2 };
struct cg {
    enum cg_version version;
    char *mount;  /* "/sys/fs/cgroup" */
    char *parent; /* "" or "/x": everything of ours is below it */
};

/* ---- container instances: one start of one container ---- */
enum inst_state { I_NONE, I_CREATED, I_RUNNING, I_EXITED };
struct inst {
    enum inst_state state;
    char *id;       /* 64 hex digits */
    int attempt;
    char *dir;      /* <pod dir>/containers/<name>/<attempt> */
    char *log_path;
    char *image, *image_id, *image_ref; /* as in the spec; "sha256:..."; "repo@sha256:" or the id */
    int64_t created_ms, started_ms, finished_ms;
    int exit_code, signal;
    char *reason, *message; /* of the end */
    pid_t pid;      /* of the container's first process; 0 when not known */
    uint64_t pid_ticks; /* its start: after a boot another process may have the pid */
    int64_t uid, gid;
    struct th_json *gids;   /* supplementary groups, an array */
    char *stop_signal; /* of the image, or NULL */
    struct th_json *resources; /* what its control group is made from; NULL: not known */
    bool oom;
    bool hook_started, hook_done; /* postStart */
};

/* CTR_EPHEMERAL: added to a running pod (kubectl debug), started once, of no consequence for the pod. */
enum ctr_kind { CTR_INIT, CTR_SIDECAR, CTR_APP, CTR_EPHEMERAL };
enum stop_phase { STOP_NONE, STOP_PRESTOP, STOP_TERM, STOP_KILL };
enum probe_kind { PROBE_STARTUP, PROBE_LIVENESS, PROBE_READINESS, PROBE_KINDS_ };
struct prober;

struct ctr {
    struct pod *pod;
    char *name;
    enum ctr_kind kind;
    struct th_json *spec; /* borrowed from pod->obj */
    struct th_json *wanted; /* resources that are not granted yet, or NULL (resize.c) */
    struct inst cur, last;
    int restarts;
    int64_t backoff_ms;      /* next wait; 0 before the first failure */
    int64_t backoff_last;    /* wall ms: when backoff_ms was last raised */
    bool in_backoff;         /* CrashLoopBackOff was announced for this end */
    char *wait_reason, *wait_message; /* why it is not running, or NULL: the default */
    int64_t retry_at;        /* mono ms: a failed creation or pull is tried again */
    int64_t pull_backoff_ms; /* next wait after a failed pull */
    int64_t pull_failed_at;  /* mono ms */
    char *pull_error, *pull_image;
    bool want_restart;       /* the instance ended and may start again */
    /* being stopped */
    enum stop_phase stop;
    int64_t stop_deadline;   /* mono ms: next phase */
    int64_t stop_kill_at;    /* mono ms: SIGKILL */
    bool prestop_running;
    char *stop_reason;       /* event message, "Container x failed liveness probe, ..." or NULL */
    bool restart_after_stop; /* stopped by us to be started again, whatever policy and exit code say */
    /* probes */
    struct prober *probers[PROBE_KINDS_];
    bool started, ready;
};

/* What other threads may read of a container; guarded by pod.mu. */
struct ctr_view {
    char *name;
    char *id;          /* running container's id or NULL */
    char *dir;
    char *log_path;    /* newest instance's log or NULL */
    char *prev_log_path;
    char *wait_reason; /* not NULL: waiting to start */
    char *cgroup;      /* of the running container, as in config.json */
    int64_t started_ms;
    pid_t pid;
    bool running, tty, stdin_open;
};

/* And of the pod, for eviction; guarded by pod.mu. */
struct pod_view {
    bool running;
    char *cgroup;
    int64_t priority;
    uint64_t memory_request_b, disk_request_b;
    int64_t cpu_request_m;
    bool resize_pending;
    bool holds;         /* its requests and host ports are taken */
    char *ports;        /* as room_ports gives them */
};

struct pod {
    atomic_int refs;
    struct agent *a;
    char *uid, *ns, *name; /* never change */
    char *dir;             /* <data>/pods/<uid> */
    bool is_static;        /* from the manifest folder */

    pthread_mutex_t mu; /* guards the block below */
    char *inbox;        /* newest desired object as JSON text, or NULL */
    bool gone;          /* removed from the API server or the manifest folder */
    bool resync_status; /* the status the server has is not ours */
    struct th_strv finished_hooks; /* "post <ctr>" / "pre <ctr>" / "postfail <ctr> <message>" */
    struct ctr_view *views;
    size_t n_views;
    struct pod_view view;
    char *evict;        /* why the node ends it, or NULL */
    char *pub_status;   /* newest status as JSON text */
    char *pub_ip;

    /* the worker's alone */
    struct th_json *obj;    /* desired */
    struct th_json *status; /* newest computed */
    struct ctr *ctrs;
    size_t n_ctrs;
    bool loaded;          /* state was read from disk */
    bool host_network;
    bool terminating, torn_down, finished;
    bool rejected;
    char *end_reason, *end_message; /* status.reason when the agent ended the pod */
    int64_t grace_s;
    bool sandbox_ready;
    char *ip;
    int64_t start_ms;     /* status.startTime */
    bool volumes_ready;
    char *volumes_error;
    int64_t volumes_retry_at;
    int volumes_failures;
    int64_t volumes_refresh_at;
    char *sandbox_error;
    int64_t sandbox_retry_at;
    bool init_done;
    char *pushed_status;  /* what the server took last */
    int64_t push_retry_at;
    int push_failures;
    bool saved;           /* pod.json holds obj */
    struct th_json *allocated; /* container -> resources that the node has granted (resize.c) */
    struct th_json *resize_pending, *resize_progress; /* {reason, message, observedGeneration} or NULL */
    bool fresh_obj;       /* the allocation is not laid over obj yet */
    bool freed;           /* something was given back that others may wait for */
    int64_t storage_check_at;
};

struct pressure {
    atomic_bool on;
    int64_t last_ms; /* mono; the watching thread's */
};

struct agent {
    struct node_opts o;
    struct pressure memory_pressure, disk_pressure;
    struct cg cg;
    struct th_ev *ev;
    struct th_wq *wq;
    pthread_t workers[8];
    size_t n_workers;
    struct th_images *images;
    struct th_net *net;
    struct th_client *client;     /* NULL in manifest mode */
    struct th_client *net_client; /* likewise; reads what rules and DNS are made from */
    struct th_client *lb_client;  /* likewise; writes the status of Services */
    struct th_recorder *recorder;
    struct th_informer *pod_inf, *svc_inf, *node_inf;
    char *crun, *conmon;
    atomic_llong offline_until;   /* mono ms: no registry answered lately */
    char *exit_dir, *crun_root, *attach_dir, *ns_dir;
    int inotify_fd;
    atomic_bool stopping;
    atomic_bool node_ready;
    pthread_mutex_t mu;           /* guards pods, by_ctr */
    struct th_hmap pods;          /* uid -> struct pod * (one reference) */
    struct th_hmap by_ctr;        /* container id -> char * pod uid */
    int64_t start_ms;
};

/* Names in a folder; none when it cannot be read. */
static inline void list_or_none(const char *path, struct th_strv *ret)
{
    if (th_io_list(path, ret, NULL) < 0) {
        th_strv_done(ret);
        *ret = (struct th_strv)TH_STRV_INIT;
    }
}

/* ---- agent.c: the table of pods ---- */
struct pod *agent_pod_find(struct agent *a, const char *uid);                    /* new reference */
/* New reference. For servers' threads: waits a moment for a pod's first look after a start of the agent. */
struct pod *agent_pod_by_name(struct agent *a, const char *ns, const char *name);
void ctr_views_free(struct ctr_view *v, size_t n);
void pod_ref(struct pod *p);
void pod_unref(struct pod *p);
TH_DEFINE_AUTO(pod, pod_unref)
/* A desired pod has come, changed (obj) or gone (obj NULL). Any thread. */
void agent_pod_desired(struct agent *a, const char *uid, const struct th_json *obj, bool is_static);
void agent_pod_forget(struct agent *a, struct pod *p);
void agent_kick(struct agent *a, const char *uid);
void agent_kick_after(struct agent *a, const char *uid, int64_t ms);
int agent_load(struct agent *a, struct th_err *err);
int agent_start(struct agent *a, struct th_err *err);
void agent_stop(struct agent *a);
void agent_register_ctr(struct agent *a, const char *id, const char *uid); /* uid NULL: forget */

/* ---- pod.c ---- */
void pod_sync(struct pod *p); /* one pass; a worker only */
void pod_free_contents(struct pod *p);
void pod_event(struct pod *p, const char *type, const char *reason, const char *ctr,
               const char *fmt, ...) TH_PRINTF(5, 6);
const char *pod_display(const struct pod *p, char buf[512]); /* "name_ns(uid)" */
struct ctr *pod_ctr(struct pod *p, const char *name);
/* Crash back-off (wall ms): until when an instance that ended at finished_ms waits (0: no wait), and the
 * next wait. last_ms is when backoff_ms was last raised: twice the longest wait later it is forgotten. */
int64_t crash_backoff_until(int64_t backoff_ms, int64_t last_ms, int64_t finished_ms);
int64_t crash_backoff_next(int64_t backoff_ms, int64_t last_ms, int64_t finished_ms);
const char *ctr_list(const struct ctr *c); /* the field of spec it is in: "containers", ... */
bool pod_restartable(const struct pod *p, const struct ctr *c, int exit_code);

/* ---- podstate.c: what is on disk ---- */
int pod_save(struct pod *p, struct th_err *err);
int pod_load(struct pod *p, struct th_err *err); /* reads pod.json, sandbox and instances */
int inst_save(const struct inst *i, struct th_err *err);
int inst_load(const char *dir, struct inst *ret, struct th_err *err);
void inst_done(struct inst *i);
void inst_scrap(const char *dir); /* removes the folder, with the root mounted in it */
void inst_poll(struct pod *p, struct ctr *c, struct inst *i); /* has it ended meanwhile? */
void inst_set_pid(struct inst *i, pid_t pid);

/* ---- ctr.c: one container ---- */
void ctr_start(struct pod *p, struct ctr *c);    /* image, config, create, start; sets wait_reason */
/* Finds out what became of an instance in state I_CREATED after the agent was restarted: I_CREATED (it
 * may be started), I_RUNNING, or I_NONE: not known yet (asks to be called again), or thrown away. */
enum inst_state ctr_settle(struct pod *p, struct ctr *c);
void ctr_delete(struct pod *p, struct inst *i);  /* crun delete, unmounts; keeps log and state */
void ctr_purge(struct pod *p, struct inst *i);   /* and its folder and log */
void ctr_stop_begin(struct pod *p, struct ctr *c, int64_t grace_s, const char *message);
void ctr_stop_step(struct pod *p, struct ctr *c); /* due phases; kicks itself for the next */
void ctr_post_start(struct pod *p, struct ctr *c);

/* ---- runtime.c: crun and conmon ---- */
struct rt_create {
    const char *id, *bundle, *log_path, *ctr_name;
    bool tty, stdin_open, stdin_once;
};
int rt_create(struct agent *a, const struct rt_create *o, pid_t *ret_pid, struct th_err *err);
/* Is the conmon of this container there (it makes and watches it)? */
bool rt_conmon_alive(const char *bundle, const char *id);
int rt_start(struct agent *a, const char *id, struct th_err *err);
/* Changes the limits of a running container; resources as in config.json. */
int rt_update(struct agent *a, const char *id, const char *bundle, const struct th_json *resources,
              struct th_err *err);
int rt_kill(struct agent *a, const char *id, const char *sig, bool all, struct th_err *err);
int rt_delete(struct agent *a, const char *id, struct th_err *err);
/* "created", "running", "stopped", or "" when crun does not know it. */
int rt_state(struct agent *a, const char *id, char ret[16], pid_t *ret_pid, struct th_err *err);
int rt_list(struct agent *a, struct th_strv *ids, struct th_err *err);
/* Runs a command in a container; output (stdout and stderr) up to max bytes. 0 and *ret_exit, or
 * negative (-TH_R_TIMEOUT after timeout_ms; the process is killed). */
int rt_exec(struct agent *a, const char *id, const char *bundle, const struct th_json *argv,
            int64_t timeout_ms, size_t max, struct th_buf *out, int *ret_exit, struct th_err *err);
/* process.json for crun exec from a container's config.json; the caller unlinks ret_path. */
int rt_exec_process(const char *bundle, const struct th_json *argv, bool tty, char **ret_path,
                    struct th_err *err);
int rt_reopen_log(const char *bundle, struct th_err *err);
bool rt_exit_read(struct agent *a, const char *id, int *ret_code, int64_t *ret_ms);

/* ---- sandbox.c ---- */
int sandbox_ensure(struct pod *p, struct th_err *err);
void sandbox_remove(struct pod *p);
char *sandbox_ns_path(const struct pod *p, const char *kind); /* "net", "ipc", "uts", "pid"; caller frees */
char *sandbox_hostname(const struct pod *p);
bool sandbox_alive(const struct pod *p);
/* A sysctl of the pod that is not safe, in upstream's words; NULL: none. The caller frees. */
char *sandbox_bad_sysctl(const struct pod *p);
void sandbox_prune(struct agent *a, const struct th_strv *keep); /* of pods that are not in keep */
int sandbox_write_files(struct pod *p, struct th_err *err); /* hosts, hostname, resolv.conf */

/* ---- pause.c: shareProcessNamespace ---- */
bool pod_shares_pids(const struct pod *p);
/* The first process of the pod's process namespace; dir is the sandbox's folder of namespaces. */
int pause_start(struct agent *a, const char *dir, struct th_err *err);
bool pause_alive(const char *dir);
void pause_end(const char *dir);
int pause_main(int argc, char **argv, int all_argc, char **all_argv); /* `node pause DIR EMPTY` */

/* ---- env.c ---- */
/* $(VAR) expansion; lookup gives NULL for what is not known. Caller frees. */
char *env_expand(const char *s, const char *(*lookup)(void *arg, const char *name), void *arg);
/* The container's variables as an ordered object name -> value. -TH_R_INVALID with the text of
 * CreateContainerConfigError when a source is missing. */
int env_build(struct pod *p, const struct ctr *c, struct th_json **ret, struct th_err *err);
int env_field(struct pod *p, const char *path, char **ret, struct th_err *err);
int env_resource(struct pod *p, const struct th_json *ref, const char *def_ctr, char **ret,
                 struct th_err *err);
/* Adds the variables of one Service. */
void env_service(struct th_json *env, const struct th_json *svc);
int node_get_object(struct agent *a, struct th_gvr r, const char *ns, const char *name,
                    struct th_json **ret, struct th_err *err);

/* ---- oci.c ---- */
struct oci_in {
    struct pod *p;
    struct ctr *c;
    const struct th_image *image;
    const char *rootfs;
    struct th_json *env;      /* name -> value */
    struct th_json *mounts;   /* OCI mounts of volumes, an array (borrowed) */
    const char *cgroup_path;
    const char *termination_log; /* host path */
};
struct oci_user {
    int64_t uid, gid;
    struct th_json *gids; /* array; owned by the receiver */
};
int oci_build(const struct oci_in *in, struct th_json **ret, struct oci_user *ret_user,
              struct th_err *err);
/* Security context of a container laid over the pod's: borrowed node or NULL. */
const struct th_json *oci_sec(const struct pod *p, const struct ctr *c, const char *field);
struct th_json *oci_seccomp_default(void); /* seccomp.c */

/* ---- cgroup.c ---- */
int cg_detect(struct agent *a, struct th_err *err);
char *cg_pod_path(const struct pod *p);                    /* "/kubepods/burstable/pod<uid>" */
int cg_pod_create(struct pod *p, struct th_err *err);
/* Sets the limits of the pod's group: only those that grow, or only those that shrink. */
void cg_pod_limits(struct pod *p, bool grow);
void cg_pod_remove(struct pod *p);
struct th_json *cg_resources(const struct pod *p, const struct ctr *c); /* OCI linux.resources */
int64_t cg_oom_adj(const struct pod *p, const struct ctr *c, int64_t capacity_b);
bool cg_oom_killed(const struct pod *p, const char *ctr_id);
const char *pod_qos(const struct th_json *pod); /* "Guaranteed", "Burstable", "BestEffort" */
int64_t quantity_value(const struct th_json *q, int64_t def); /* whole units, rounded up */
int64_t quantity_milli(const struct th_json *q, int64_t def);
/* What the pod as a whole requests of a resource, in whole units (cpu: in thousandths). */
int64_t pod_request(const struct pod *p, const char *resource);
int cg_conmon_prepare(struct agent *a, char **ret_procs_path, struct th_err *err);
struct cg_usage {
    uint64_t cpu_ns, memory_b, working_set_b, rss_b, faults, major_faults;
};
int cg_usage_read(const struct agent *a, const char *path, struct cg_usage *ret);

struct cg_node {
    uint64_t cpu_ns, memory_b, available_b, working_set_b, rss_b, faults, major_faults;
};
void cg_node_usage(struct cg_node *ret); /* of the whole machine */

/* ---- resize.c: resources of pods that run ---- */
/* Lays what the node has granted over a new object; what differs waits in ctr.wanted. */
void resize_take(struct pod *p);
/* Grants what is wanted if it fits, and changes running containers to what is granted. */
void resize_step(struct pod *p);
void resize_retry_others(struct agent *a); /* resources were given back */
bool resources_same(const struct th_json *a, const struct th_json *b); /* CPU and memory */

/* ---- room.c ---- */
/* NULL when there is room beside the other pods; else upstream's message (the caller frees), and its
 * reason. room_resources looks at CPU and memory alone. */
char *room_for(struct pod *p, const char **ret_reason);
char *room_resources(struct pod *p, const char **ret_reason);
char *room_ports(const struct pod *p); /* host ports, a line each: "TCP 0.0.0.0 80" */
bool room_ports_clash(const char *a, const char *b);

/* ---- stats.c ---- */
/* /stats/summary; brief: processor and memory only. */
struct th_json *stats_summary(struct agent *a, bool brief);
void stats_metrics_resource(struct agent *a, struct th_buf *b);  /* /metrics/resource */
struct fs_usage {
    uint64_t used_b, inodes;
};
struct fs_usage fs_usage(const char *path); /* of a folder and what is in it on the same file system */

/* ---- eviction.c ---- */
int eviction_start(struct agent *a, struct th_err *err);
void eviction_stop(void);
/* Is the pod over a limit of local storage? Looks at most every 10 s; a worker only. *ret (the caller frees)
 * is upstream's message. */
bool pod_over_storage(struct pod *p, char **ret);
struct victim {
    struct pod *p;
    uint64_t used_b, request_b;
    int64_t priority;
};
struct pod *eviction_choose(struct victim *v, size_t n); /* the one to end first, or NULL; borrowed */
uint64_t eviction_disk_threshold_b(uint64_t total_b);

/* ---- volumes.c ---- */
/* The volume's folder on the node; caller frees. */
char *volume_dir(const struct pod *p, const struct th_json *vol);
/* {hostPath: {type}} at dir: makes or checks it. */
int vol_host_path(const struct th_json *vol, const char *dir, struct th_err *err);
int volumes_setup(struct pod *p, struct th_err *err);   /* names the volume in the message */
int volumes_refresh(struct pod *p, struct th_err *err); /* config maps, secrets, tokens */
void volumes_teardown(struct pod *p);
/* OCI mounts for a container; an array, the caller unrefs. */
int volumes_mounts(struct pod *p, const struct ctr *c, struct th_json **ret, struct th_err *err);
/* ---- vol_claim.c: volumes that are PersistentVolumeClaims ---- */
bool vol_is_claim(const struct th_json *vol);
bool vol_claim_read_only(const struct th_json *vol);
char *vol_claim_dir(const struct pod *p, const struct th_json *vol); /* once it was set up; caller frees */
int vol_claim_setup(struct pod *p, const struct th_json *vol, struct th_err *err); /* the whole message */

/* files: path -> {"data": base64 or text...}; see vol_write.c */
struct vol_file {
    char *path; /* relative */
    struct th_buf data;
    mode_t mode;
    int64_t uid; /* whose it is; -1: the agent's */
};
struct vol_files {
    struct vol_file *v;
    size_t n, cap;
};
void vol_files_done(struct vol_files *f);
struct vol_file *vol_files_add(struct vol_files *f, const char *path, mode_t mode);
/* Makes dir hold exactly these files, by swapping the ..data link. gid -1: no fsGroup. true in
 * *ret_changed when something was swapped. */
int vol_write(const char *dir, const struct vol_files *f, int64_t gid, bool *ret_changed,
              struct th_err *err);
/* Gathers the files of a configMap, secret, downwardAPI or projected volume. *ret_refresh_ms is
 * lowered to when it should be done again. */
int vol_collect(struct pod *p, const struct th_json *vol, const char *dir, struct vol_files *f,
                int64_t *ret_refresh_ms, struct th_err *err);
void vol_chown(const char *path, int64_t gid, bool read_only);

/* ---- vol_image.c ---- */
/* The volume with this index if it is an image that the container mounts; else NULL. Borrowed. */
const struct th_json *vol_image_of(const struct pod *p, const struct ctr *c, size_t index);
bool vol_image_mounted(const struct pod *p, const struct th_json *vol);
int vol_image_mount(struct pod *p, size_t index, const struct th_image *img, struct th_err *err);
void vol_image_teardown(struct pod *p); /* after the mounts are gone */

/* ---- status.c ---- */
struct th_json *status_build(struct pod *p);
void status_publish(struct pod *p); /* builds, publishes to the views, sends when changed */
const char *pod_phase(struct pod *p);

/* ---- probe.c ---- */
void probes_start(struct pod *p, struct ctr *c); /* the current instance's probes */
void probes_stop(struct ctr *c);
/* Worker side: results since the last look. */
enum probe_result { PROBE_UNKNOWN, PROBE_SUCCESS, PROBE_FAILURE };
enum probe_result prober_result(const struct prober *pr);

/* ---- hooks.c ---- */
void hook_run(struct pod *p, struct ctr *c, bool post_start);

/* ---- http_get.c: blocking HTTP GET to a pod (hooks, HTTPS probes, redirects) ---- */
int http_get(const char *ip, int port, const char *path, const char *host, const struct th_json *headers,
             bool tls, const char *user_agent, int64_t timeout_ms, int *ret_status, struct th_buf *body,
             struct th_err *err);
char *http_url(const char *ip, int port, const char *path, bool tls); /* the caller frees */
/* *ret_redirect (when asked for; the caller frees): where the answer sends the client, or left alone. */
int http_get_url(const char *url, const char *host, const struct th_json *headers, const char *user_agent,
                 int64_t timeout_ms, int *ret_status, char **ret_redirect, struct th_buf *body,
                 struct th_err *err);
/* Follows redirects that stay on the same host, at most ten; the answer that sends elsewhere is the last. */
int http_get_local(const char *url, const struct th_json *headers, const char *user_agent, int64_t timeout_ms,
                   int *ret_status, struct th_buf *body, struct th_err *err);

/* ---- grpc_health.c ---- */
/* Asks a gRPC server for its health, blocking. true: it serves. *ret_text (the caller frees) is what a
 * probe's event says. */
bool grpc_health(const char *ip, int port, const char *service, int64_t timeout_ms, char **ret_text);
void grpc_health_request(const char *service, struct th_buf *out); /* a framed HealthCheckRequest */
int grpc_health_status(const void *body, size_t n); /* the status in a framed answer, -1: not one */

int probe_port(const struct ctr *c, const struct th_json *port); /* number of an IntOrString, or -1 */

/* ---- logs.c ---- */
void logs_rotate(struct agent *a);

/* ---- nodestatus.c ---- */
int node_status_start(struct agent *a, struct th_err *err);
void node_status_stop(struct agent *a);
void node_status_poke(void); /* something in it has changed */
int64_t node_memory_b(void);
int64_t node_allocatable_memory_b(void);
int64_t node_cpus(void);

/* ---- server.c ---- */
int server_start(struct agent *a, struct th_err *err);
void server_stop(struct agent *a);

/* ---- manifest.c ---- */
int manifests_start(struct agent *a, struct th_err *err);
#endif
