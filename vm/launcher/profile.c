/* Profiles on disk.
 *
 * Three folders by the XDG rules, because they have three lives: data (settings, identity, disk:
 * what a backup wants), state (what is running, logs, sockets: may be lost while nothing runs) and
 * cache (unpacked guest parts, the finding about acceleration: may always be lost).
 *
 * profile.json and state.json are written atomically and read strictly: a file that does not parse,
 * or that lacks what it must have, is TH_R_STATE_CORRUPT, never guessed around; delete works
 * without reading either. Whoever changes a profile holds the flock on state/lock for the whole
 * command; it vanishes with the process, so a crash leaves nothing to clear.
 *
 * A running machine is known by pid and start time of its process: a pid alone may be someone
 * else's after a reboot. */
#include "vm/launcher/profile.h"
#include "base/encode.h"
#include "base/io.h"
#include "base/limits.h"
#include "base/proc.h"
#include "base/rand.h"
#include <errno.h>
#include <signal.h>
#include <sys/stat.h>

#define NAME_MAX_LEN 32

int th_profile_check_name(const char *name, struct th_err *err)
{
    size_t n = name ? strlen(name) : 0;
    bool ok = n >= 1 && n <= NAME_MAX_LEN && name[0] != '-' && name[n - 1] != '-';
    for (size_t i = 0; ok && i < n; i++) {
        char c = name[i];
        ok = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
    }
    if (!ok) {
        (void)th_fail(err, TH_R_USAGE, "bad profile name \"%s\"", name ? name : "");
        return th_hint(err, "use 1 to %d of a-z, 0-9 and '-', not at the ends", NAME_MAX_LEN);
    }
    return 0;
}

char *th_profile_context(const char *profile)
{
    return !profile || th_streq(profile, TH_PROFILE_DEFAULT) ? th_xstrdup("thimble")
                                                             : th_xasprintf("thimble-%s", profile);
}

static int xdg(const char *var, const char *fallback, char **ret, struct th_err *err)
{
    const char *dir = getenv(var);
    if (dir && dir[0] == '/') { /* the specification: relative ones are ignored */
        *ret = th_path_join(dir, "thimble");
        return 0;
    }
    const char *home = getenv("HOME");
    if (!home || home[0] != '/') {
        return th_fail(err, TH_R_USAGE, "neither HOME nor %s is set", var);
    }
    *ret = th_path_joinf(home, "%s/thimble", fallback);
    return 0;
}

int th_profile_paths(const char *name, struct th_profile *ret, struct th_err *err)
{
    name = name ? name : TH_PROFILE_DEFAULT;
    TH_TRY(th_profile_check_name(name, err));
    th_autofree char *data = NULL, *state = NULL;
    char *cache = NULL;
    TH_TRY(xdg("XDG_DATA_HOME", ".local/share", &data, err));
    TH_TRY(xdg("XDG_STATE_HOME", ".local/state", &state, err));
    TH_TRY(xdg("XDG_CACHE_HOME", ".cache", &cache, err));
    *ret = (struct th_profile){.name = th_xstrdup(name), .data = th_path_join(data, name),
                               .state = th_path_join(state, name), .cache = cache, .lock_fd = -1};
    return 0;
}

void th_profile_done(struct th_profile *p)
{
    free(p->name);
    free(p->data);
    free(p->state);
    free(p->cache);
    free(p->driver);
    free(p->uuid);
    th_json_unref(p->run);
    if (p->lock_fd >= 0) {
        (void)close(p->lock_fd);
    }
    *p = (struct th_profile){.lock_fd = -1};
}

char *th_profile_file(const struct th_profile *p, const char *name)
{
    return th_path_join(p->state, name);
}

bool th_profile_exists(const struct th_profile *p)
{
    th_autofree char *file = th_path_join(p->data, "profile.json");
    return th_io_exists(file);
}

int th_profile_lock(struct th_profile *p, struct th_err *err)
{
    TH_TRY(th_io_mkdir_p(p->state, 0700, err));
    TH_TRY(th_io_mkdir_p(p->data, 0700, err));
    TH_TRY(th_io_mkdir_p(p->cache, 0700, err));
    if (chmod(p->state, 0700) < 0 || chmod(p->data, 0700) < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "%s", p->state);
    }
    th_autofree char *file = th_profile_file(p, "lock");
    TH_AUTO_ERR struct th_err e = TH_ERR_INIT;
    int r = th_io_lock(file, 0, &p->lock_fd, &e);
    if (r == -TH_R_LOCKED) {
        (void)th_fail(err, TH_R_LOCKED, "another thimble command is working on profile \"%s\"",
                      p->name);
        return th_hint(err, "wait for it to end, or use another profile with -p");
    }
    if (r < 0 && err) {
        th_err_move(err, &e);
    }
    return r;
}

static int corrupt(const struct th_profile *p, const char *file, const char *why, struct th_err *err)
{
    (void)th_fail(err, TH_R_STATE_CORRUPT, "%s of profile \"%s\" is damaged: %s", file, p->name,
                  why);
    if (th_streq(th_path_base(file), "state.json")) { /* may be lost while nothing runs */
        return th_hint(err, "if no machine of the profile runs, remove the file; else end it with: "
                            "thimble delete -p %s",
                       p->name);
    }
    return th_hint(err, "put the file back, or remove the profile with: thimble delete -p %s",
                   p->name);
}

static int read_json(const struct th_profile *p, const char *path, struct th_json **ret,
                     struct th_err *err)
{
    th_autobuf struct th_buf text = TH_BUF_INIT;
    TH_AUTO_ERR struct th_err e = TH_ERR_INIT;
    int r = th_io_read_file(path, TH_LIMIT_CONFIG_FILE_B, &text, &e);
    if (r == -TH_R_NOT_FOUND) {
        (void)th_fail(err, TH_R_NOT_FOUND, "there is no profile \"%s\"", p->name);
        return th_hint(err, "see thimble list; start it with: thimble start -p %s", p->name);
    }
    if (r == -TH_R_NO_PERMISSION) {
        (void)th_fail(err, TH_R_NO_PERMISSION, "the profile \"%s\" cannot be read: %s", p->name,
                      e.msg);
        return th_hint(err, "it may belong to another user (was it started with sudo?); use another "
                            "profile with -p");
    }
    if (r < 0 || th_json_parse(text.p ? text.p : "", text.n, NULL, ret, &e) < 0) {
        return corrupt(p, path, e.msg, err);
    }
    if (!th_json_is(*ret, TH_JSON_OBJECT)) {
        th_json_unref(*ret);
        *ret = NULL;
        return corrupt(p, path, "not an object", err);
    }
    return 0;
}

static bool settings_take(struct th_profile *p, const struct th_json *o)
{
    const char *driver = th_json_path_str(o, "driver"), *uuid = th_json_path_str(o, "uuid");
    p->number = (int)th_json_path_int(o, "number", -1);
    p->cpus = (int)th_json_path_int(o, "cpus", 0);
    p->memory_mb = (int)th_json_path_int(o, "memory_mb", 0);
    p->disk_gb = (int)th_json_path_int(o, "disk_gb", 0);
    p->nodes = (int)th_json_path_int(o, "nodes", 1);
    p->simulated_nodes = (int)th_json_path_int(o, "simulated_nodes", 0);
    p->api_port = (int)th_json_path_int(o, "api_port", 0);
    free(p->driver);
    free(p->uuid);
    p->driver = th_xstrdup(driver);
    p->uuid = th_xstrdup(uuid);
    return driver && uuid && strlen(uuid) == TH_UUID_LEN - 1 && p->number >= 0 &&
           p->number <= TH_PROFILE_NUMBER_MAX && p->cpus >= 0 && p->memory_mb >= 0 &&
           p->disk_gb >= 0 && p->nodes >= 0 && p->api_port >= 0 && p->api_port <= 65535;
}

int th_profile_load(struct th_profile *p, struct th_err *err)
{
    th_autofree char *settings = th_path_join(p->data, "profile.json");
    TH_AUTO(th_json) struct th_json *o = NULL;
    TH_TRY(read_json(p, settings, &o, err));
    if (!settings_take(p, o)) {
        return corrupt(p, settings, "a value is missing or out of range", err);
    }
    th_autofree char *state = th_profile_file(p, "state.json");
    th_json_unref(p->run);
    p->run = NULL;
    TH_AUTO_ERR struct th_err e = TH_ERR_INIT;
    int r = read_json(p, state, &p->run, &e);
    if (r == -TH_R_NOT_FOUND) {
        p->run = th_json_object();
        return 0;
    }
    if (r < 0 && err) {
        th_err_move(err, &e);
    }
    return r;
}

static int save(const char *path, const struct th_json *o, struct th_err *err)
{
    th_autobuf struct th_buf text = TH_BUF_INIT;
    th_json_dump_pretty(o, &text);
    th_buf_putc(&text, '\n');
    return th_io_write_atomic(path, text.p, text.n, 0600, err);
}

int th_profile_save(const struct th_profile *p, struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *o = th_json_build(
        "{'driver':%s,'uuid':%s,'number':%d,'cpus':%d,'memory_mb':%d,'disk_gb':%d,'nodes':%d,"
        "'simulated_nodes':%d,'api_port':%d}",
        p->driver, p->uuid, (int64_t)p->number, (int64_t)p->cpus, (int64_t)p->memory_mb,
        (int64_t)p->disk_gb, (int64_t)p->nodes, (int64_t)p->simulated_nodes, (int64_t)p->api_port);
    th_autofree char *path = th_path_join(p->data, "profile.json");
    return save(path, o, err);
}

int th_profile_save_run(const struct th_profile *p, struct th_err *err)
{
    th_autofree char *path = th_profile_file(p, "state.json");
    return save(path, p->run, err);
}

static char *parent(const char *path)
{
    return th_xstrndup(path, (size_t)(th_path_base(path) - path - 1));
}

int th_profile_names(struct th_strv *ret, struct th_err *err)
{
    struct th_profile p = {.lock_fd = -1};
    TH_TRY(th_profile_paths(NULL, &p, err));
    const char *const dirs[] = {p.data, p.state};
    int r = 0;
    for (size_t i = 0; i < TH_ARRAY_LEN(dirs) && r == 0; i++) {
        th_autofree char *dir = parent(dirs[i]);
        th_autostrv struct th_strv names = TH_STRV_INIT;
        r = th_io_is_dir(dir) ? th_io_list(dir, &names, err) : 0;
        for (size_t k = 0; k < names.n && r == 0; k++) {
            if (th_profile_check_name(names.v[k], NULL) == 0 && !th_strv_has(ret, names.v[k])) {
                th_strv_add(ret, names.v[k]);
            }
        }
    }
    th_profile_done(&p);
    if (r == 0 && ret->n) {
        th_strv_sort(ret);
    }
    return r;
}

int th_profile_create(struct th_profile *p, struct th_err *err)
{
    th_autofree char *dir = parent(p->data);
    th_autofree char *lock = th_path_join(dir, ".lock");
    th_autoclose int lock_fd = -1;
    TH_TRY(th_io_lock(lock, 10000, &lock_fd, err));
    th_autostrv struct th_strv names = TH_STRV_INIT;
    TH_TRY(th_profile_names(&names, err));
    bool taken[TH_PROFILE_NUMBER_MAX + 1] = {false};
    for (size_t i = 0; i < names.n; i++) {
        TH_AUTO_PROFILE struct th_profile other = {.lock_fd = -1};
        if (th_profile_paths(names.v[i], &other, NULL) == 0 && th_profile_load(&other, NULL) == 0) {
            taken[other.number] = true;
        }
    }
    int k = 0;
    while (k <= TH_PROFILE_NUMBER_MAX && taken[k]) {
        k++;
    }
    if (k > TH_PROFILE_NUMBER_MAX) {
        (void)th_fail(err, TH_R_USAGE, "there are %d profiles already", TH_PROFILE_NUMBER_MAX + 1);
        return th_hint(err, "delete one: thimble list; thimble delete -p NAME");
    }
    p->number = k;
    char uuid[TH_UUID_LEN];
    free(p->uuid);
    p->uuid = th_xstrdup(th_rand_uuid(uuid));
    p->nodes = 1;
    th_json_unref(p->run);
    p->run = th_json_object();
    return th_profile_save(p, err);
}

/* One that has ended but was not waited for (no init in a container does so in time) is gone. */
static bool is_zombie(pid_t pid)
{
    th_autofree char *path = th_xasprintf("/proc/%d/stat", (int)pid);
    th_autobuf struct th_buf text = TH_BUF_INIT;
    if (th_io_read_file(path, 4096, &text, NULL) < 0) {
        return true;
    }
    const char *end = strrchr(th_buf_cstr(&text), ')');
    return end && end[1] == ' ' && (end[2] == 'Z' || end[2] == 'X');
}

bool th_process_is(pid_t pid, uint64_t ticks)
{
    return pid > 0 && ticks != 0 && th_proc_start_ticks(pid) == ticks && !is_zombie(pid);
}

pid_t th_profile_alive(const struct th_profile *p)
{
    pid_t pid = (pid_t)th_json_path_int(p->run, "pid", 0);
    uint64_t ticks = (uint64_t)th_json_path_int(p->run, "ticks", 0);
    return th_process_is(pid, ticks) ? pid : 0;
}

void th_profile_set_process(struct th_profile *p, pid_t pid)
{
    th_json_set_int(p->run, "pid", pid);
    th_json_set_int(p->run, "ticks", pid > 0 ? (int64_t)th_proc_start_ticks(pid) : 0);
}
