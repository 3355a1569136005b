/* The file of the audit log, and its rotation.
 *
 * Lines are appended with one write each under a lock, so that they are whole whoever else appends.
 * A file that would grow over its limit is renamed after the moment, audit-2026-01-02T03-04-05.678.log
 * for audit.log, as upstream's log writer names them, and a new one is begun; then what is too many or
 * too old goes. When renaming fails the file goes on growing: a long log is better than a lost line.
 * Lines larger than the limit make a file of their own. Nothing is compressed.
 */
#include "controlplane/api/audit_log.h"

#include "base/alloc.h"
#include "base/buf.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define STAMP_LEN 23 /* "2026-01-02T03-04-05.678" */

struct th_audit_log {
    char *path; /* NULL: standard output */
    int64_t max_b;
    int max_backups, max_age_days;
    pthread_mutex_t lock; /* guards the two below */
    int fd;
    int64_t size;
};

/* "dir/audit" and ".log" of the path: what stands around the stamp. */
static size_t stem(const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *dot = strrchr(slash ? slash : path, '.');
    return dot && dot != path && dot[-1] != '/' ? (size_t)(dot - path) : strlen(path);
}

static char *backup_name(const struct th_audit_log *l)
{
    int64_t ms = th_now_ms();
    time_t s = (time_t)(ms / 1000);
    struct tm tm;
    char stamp[32];
    if (!gmtime_r(&s, &tm) || strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H-%M-%S", &tm) == 0) {
        return NULL;
    }
    int n = (int)stem(l->path);
    return th_xasprintf("%.*s-%s.%03d%s", n, l->path, stamp, (int)(ms % 1000), l->path + n);
}

/* True for "audit-STAMP.log" beside "audit.log". */
static bool is_backup(const char *base, const char *name)
{
    size_t n = stem(base);
    const char *end = base + n;
    return strlen(name) == n + 1 + STAMP_LEN + strlen(end) && strncmp(name, base, n) == 0 &&
           name[n] == '-' && name[n + 11] == 'T' && strcmp(name + n + 1 + STAMP_LEN, end) == 0;
}

static bool too_old(const struct th_audit_log *l, const char *path)
{
    struct stat st;
    return l->max_age_days > 0 && stat(path, &st) == 0 &&
           st.st_mtime < th_now_ms() / 1000 - (int64_t)l->max_age_days * 86400;
}

/* Removes what is too many or too old; stamps sort as time does. */
static void prune(const struct th_audit_log *l)
{
    const char *slash = strrchr(l->path, '/');
    const char *base = slash ? slash + 1 : l->path;
    th_autofree char *dir =
        slash ? th_xstrndup(l->path, (size_t)(slash - l->path) + 1) : th_xstrdup("./");
    DIR *d = opendir(dir);
    if (!d) {
        return;
    }
    th_autostrv struct th_strv names = TH_STRV_INIT;
    struct dirent *e;
    while ((e = readdir(d))) {
        if (is_backup(base, e->d_name)) {
            th_strv_add(&names, e->d_name);
        }
    }
    (void)closedir(d);
    th_strv_sort(&names);
    for (size_t i = 0; i < names.n; i++) {
        th_autofree char *path = th_xasprintf("%s%s", dir, names.v[i]);
        bool many = l->max_backups > 0 && names.n - i > (size_t)l->max_backups;
        if (many || too_old(l, path)) {
            (void)unlink(path);
        }
    }
}

static int open_file(struct th_audit_log *l, struct th_err *err)
{
    int fd = open(l->path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0) {
        int saved = errno;
        if (fd >= 0) {
            (void)close(fd);
        }
        return th_fail_errno(err, saved, TH_R_IO, "opening %s", l->path);
    }
    l->fd = fd;
    l->size = st.st_size;
    return 0;
}

static void rotate(struct th_audit_log *l)
{
    th_autofree char *name = backup_name(l);
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    int old = l->fd;
    if (!name || rename(l->path, name) < 0) {
        th_warn("audit", "the log could not be put aside", "path=%s", th_log_q(l->path));
        return;
    }
    if (open_file(l, &err) < 0) {
        th_warn("audit", "no new log: the old one goes on", "error=%s", th_log_q(err.msg));
        return;
    }
    (void)close(old);
    prune(l);
}

int th_audit_log_open(const char *path, int max_size_mb, int max_backups, int max_age_days,
                      struct th_audit_log **ret, struct th_err *err)
{
    struct th_audit_log *l = TH_NEW(struct th_audit_log);
    l->fd = -1;
    l->max_b = (int64_t)max_size_mb << 20;
    l->max_backups = max_backups;
    l->max_age_days = max_age_days;
    (void)pthread_mutex_init(&l->lock, NULL);
    int r = 0;
    if (strcmp(path, "-") == 0) {
        l->fd = dup(STDOUT_FILENO);
        r = l->fd >= 0 ? 0 : th_fail_errno(err, errno, TH_R_IO, "opening standard output");
    } else {
        l->path = th_xstrdup(path);
        r = open_file(l, err);
    }
    if (r < 0) {
        th_audit_log_close(l);
        return r;
    }
    *ret = l;
    return 0;
}

void th_audit_log_put(struct th_audit_log *l, const char *line, size_t n)
{
    (void)pthread_mutex_lock(&l->lock);
    if (l->path && l->max_b > 0 && l->size > 0 && l->size + (int64_t)n > l->max_b) {
        rotate(l);
    }
    int r = th_io_write_all(l->fd, line, n, NULL);
    l->size += r >= 0 ? (int64_t)n : 0;
    (void)pthread_mutex_unlock(&l->lock);
    if (r < 0) {
        th_warn("audit", "a line is lost", NULL);
    }
}

void th_audit_log_close(struct th_audit_log *l)
{
    if (!l) {
        return;
    }
    if (l->fd >= 0) {
        (void)close(l->fd);
    }
    (void)pthread_mutex_destroy(&l->lock);
    free(l->path);
    free(l);
}
