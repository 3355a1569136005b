#ifndef TH_LAUNCHER_PROFILE_H
#define TH_LAUNCHER_PROFILE_H
/* A profile's folders, settings, run state and identity. Internal to the launcher. */
#include "base/buf.h"
#include "base/err.h"
#include "base/json/json.h"
#include "base/pki.h"
#include "vm/launcher/launcher.h"

#define TH_PROFILE_NUMBER_MAX 31 /* 127.(96+k): k = 31 is 127.127 */

struct th_profile {
    char *name;
    char *data;  /* $XDG_DATA_HOME/thimble/NAME: profile.json, identity/, disk.qcow2 or data/ */
    char *state; /* $XDG_STATE_HOME/thimble/NAME: state.json, ports.json, sockets, console.log */
    char *cache; /* $XDG_CACHE_HOME/thimble: shared by all profiles */
    int lock_fd; /* -1: not locked */

    /* profile.json */
    char *driver;
    char *uuid;       /* names the machine for libvirt; its machine-id */
    int number, cpus, memory_mb, disk_gb, nodes, simulated_nodes, api_port;

    /* state.json; empty when never started or deleted */
    struct th_json *run;
};
/* Fills the paths only; nothing is made or read. */
int th_profile_paths(const char *name, struct th_profile *ret, struct th_err *err) TH_MUST_USE;
void th_profile_done(struct th_profile *p);
#define TH_AUTO_PROFILE TH_CLEANUP(th_profile_done)
bool th_profile_exists(const struct th_profile *p);
/* Reads profile.json and state.json. TH_R_NOT_FOUND, TH_R_STATE_CORRUPT (with the next step). */
int th_profile_load(struct th_profile *p, struct th_err *err) TH_MUST_USE;
/* Makes the folders and takes the lock; TH_R_LOCKED when another command has it. */
int th_profile_lock(struct th_profile *p, struct th_err *err) TH_MUST_USE;
/* Takes a number that no other profile has, under the user's common lock, and saves. */
int th_profile_create(struct th_profile *p, struct th_err *err) TH_MUST_USE;
int th_profile_save(const struct th_profile *p, struct th_err *err) TH_MUST_USE;
int th_profile_save_run(const struct th_profile *p, struct th_err *err) TH_MUST_USE;
/* All names that have a folder, sorted. */
int th_profile_names(struct th_strv *ret, struct th_err *err) TH_MUST_USE;
char *th_profile_file(const struct th_profile *p, const char *name); /* below state */

/* The process that state.json names, if it still is that process. */
pid_t th_profile_alive(const struct th_profile *p);
void th_profile_set_process(struct th_profile *p, pid_t pid);
/* Adds "pid" and "ticks" members; true when the pair still names a live process. */
bool th_process_is(pid_t pid, uint64_t ticks);

/* Makes what is missing: CA, service account key, server and admin certificates; certificates with
 * less than 30 days left are issued anew under the same CA. */
int th_identity_ensure(struct th_profile *p, struct th_err *err) TH_MUST_USE;
/* {"ca.crt":PEM,...}: what the guest gets. */
int th_identity_files(const struct th_profile *p, struct th_json **ret, struct th_err *err) TH_MUST_USE;
/* One identity file as text; NULL when it is not there. Caller frees. */
char *th_identity_read(const struct th_profile *p, const char *name);
#define TH_NODE_NAME "thimble"
#endif
