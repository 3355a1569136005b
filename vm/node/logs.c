/* Container logs: reading and rotation.
 *
 * conmon writes `<time> <stream> <P|F> <text>\n`; P marks a part of a line longer than its buffer,
 * which readers join. Logs are rotated as the kubelet does: at 10 MiB <n>.log becomes
 * <n>.log.<time>, conmon is told to open the file anew (its ctl pipe), and at most 4 old parts stay.
 *
 * A reader goes through the old parts and then the current file. `tail` is found by reading the
 * newest part from its end backwards in blocks, so `--tail=10` of a large log costs a few reads. On
 * follow the caller asks again when it likes; a rename under the reader is noticed by comparing
 * inodes. */
#include "vm/node/logs.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/limits.h"
#include "base/log.h"
#include "vm/node/agent.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

struct log_reader {
    struct log_opts o;
    char *path;
    struct th_strv parts; /* still to be read, oldest first; the last is the current file */
    size_t at;
    int fd;
    struct th_buf buf;    /* bytes not yet cut into lines */
    int64_t given;
    bool cut, mid_line;   /* mid_line: the last thing given was a partial line */
};

bool log_line_parse(const char *p, size_t n, struct log_line *ret)
{
    const char *end = p + n;
    const char *a = memchr(p, ' ', n);
    const char *b = a ? memchr(a + 1, ' ', (size_t)(end - a - 1)) : NULL;
    const char *c = b ? memchr(b + 1, ' ', (size_t)(end - b - 1)) : NULL;
    if (!b) {
        return false;
    }
    const char *tag_end = c ? c : end;
    ret->time = (struct th_str){p, (size_t)(a - p)};
    ret->stream = (struct th_str){a + 1, (size_t)(b - a - 1)};
    ret->partial = tag_end > b + 1 && b[1] == 'P';
    ret->text = c ? (struct th_str){c + 1, (size_t)(end - c - 1)} : (struct th_str){end, 0};
    return ret->time.n >= 20;
}

static void list_parts(struct log_reader *r)
{
    const char *base = th_path_base(r->path);
    th_autofree char *dir = th_xstrndup(r->path, (size_t)(base - r->path));
    th_autofree char *prefix = th_xasprintf("%s.", base);
    th_autostrv struct th_strv names = TH_STRV_INIT;
    if (th_io_list(*dir ? dir : ".", &names, NULL) >= 0) {
        for (size_t i = 0; i < names.n; i++) {
            if (th_startswith(names.v[i], prefix)) {
                th_strv_take(&r->parts, th_path_join(dir, names.v[i]));
            }
        }
    }
    th_strv_add(&r->parts, r->path);
}

/* Counts full lines in a file from its end; returns the offset where the last *left lines begin and
 * lowers *left by the lines found. */
static off_t tail_offset(int fd, int64_t *left)
{
    off_t end = lseek(fd, 0, SEEK_END);
    off_t pos = end;
    char block[65536];
    while (pos > 0) {
        size_t n = pos > (off_t)sizeof(block) ? sizeof(block) : (size_t)pos;
        pos -= (off_t)n;
        ssize_t got = pread(fd, block, n, pos);
        if (got <= 0) {
            return 0;
        }
        for (ssize_t i = got - 1; i >= 0; i--) {
            if (block[i] != '\n' || pos + i + 1 == end) {
                continue;
            }
            /* a line begins at pos+i+1; parts (tag P) do not end a line, but are rare: count all */
            if (--*left == 0) {
                return pos + i + 1;
            }
        }
    }
    if (end > 0) {
        --*left;
    }
    return 0;
}

static void seek_tail(struct log_reader *r)
{
    int64_t left = r->o.tail;
    for (size_t i = r->parts.n; i > 0; i--) {
        int fd = open(r->parts.v[i - 1], O_RDONLY | O_CLOEXEC);
        if (fd < 0) {
            continue;
        }
        off_t off = left > 0 ? tail_offset(fd, &left) : lseek(fd, 0, SEEK_END);
        if (left <= 0 || i == 1) {
            r->at = i - 1;
            r->fd = fd;
            (void)lseek(fd, off, SEEK_SET);
            return;
        }
        close(fd);
    }
}

int log_reader_new(const char *path, const struct log_opts *o, struct log_reader **ret, struct th_err *err)
{
    if (!th_io_exists(path)) {
        return th_fail(err, TH_R_NOT_FOUND, "failed to open log file \"%s\": no such file or directory", path);
    }
    struct log_reader *r = TH_NEW(struct log_reader);
    r->o = *o;
    r->path = th_xstrdup(path);
    r->fd = -1;
    list_parts(r);
    if (o->tail >= 0) {
        seek_tail(r);
    }
    *ret = r;
    return 0;
}

void log_reader_free(struct log_reader *r)
{
    if (!r) {
        return;
    }
    if (r->fd >= 0) {
        close(r->fd);
    }
    th_strv_done(&r->parts);
    th_buf_done(&r->buf);
    free(r->path);
    free(r);
}

static void give(struct log_reader *r, struct th_buf *out, const char *p, size_t n)
{
    if (r->o.limit_b >= 0 && r->given + (int64_t)n >= r->o.limit_b) {
        n = (size_t)(r->o.limit_b - r->given);
        r->cut = true;
    }
    th_buf_add(out, p, n);
    r->given += (int64_t)n;
}

static void give_line(struct log_reader *r, struct th_buf *out, const char *p, size_t n)
{
    struct log_line l;
    if (r->cut || !log_line_parse(p, n, &l)) {
        return;
    }
    if (r->o.since_us > 0) {
        th_autofree char *t = th_xstrndup(l.time.p, l.time.n);
        int64_t us = 0;
        if (th_time_parse(t, &us, NULL) >= 0 && us < r->o.since_us) {
            return;
        }
        r->o.since_us = 0; /* lines are in order */
    }
    if (r->o.stream && strncasecmp(r->o.stream, l.stream.p, l.stream.n) != 0) {
        return;
    }
    if (r->o.timestamps && !r->mid_line) {
        /* conmon writes the offset in digits; upstream's readers print UTC as Z */
        bool utc = l.time.n > 6 && strncmp(l.time.p + l.time.n - 6, "+00:00", 6) == 0;
        give(r, out, l.time.p, utc ? l.time.n - 6 : l.time.n);
        if (utc && !r->cut) {
            give(r, out, "Z", 1);
        }
        if (!r->cut) {
            give(r, out, " ", 1);
        }
    }
    if (!r->cut) {
        give(r, out, l.text.p, l.text.n);
    }
    if (!r->cut && !l.partial) {
        give(r, out, "\n", 1);
    }
    r->mid_line = l.partial;
}

static bool next_part(struct log_reader *r)
{
    if (r->at + 1 < r->parts.n) {
        r->at++;
        close(th_steal_fd(&r->fd));
        return true;
    }
    struct stat now, open_;
    if (r->o.follow && stat(r->path, &now) == 0 && fstat(r->fd, &open_) == 0 && now.st_ino != open_.st_ino) {
        close(th_steal_fd(&r->fd)); /* rotated: the new file from its beginning */
        return true;
    }
    return false;
}

int log_reader_read(struct log_reader *r, struct th_buf *out, size_t max)
{
    size_t start = out->n;
    while (!r->cut && out->n - start < max) {
        if (r->fd < 0) {
            r->fd = open(r->parts.v[r->at], O_RDONLY | O_CLOEXEC);
            if (r->fd < 0) {
                if (r->at + 1 < r->parts.n) {
                    r->at++;
                    continue;
                }
                break;
            }
        }
        char chunk[16384];
        ssize_t n = read(r->fd, chunk, sizeof(chunk));
        if (n <= 0) {
            if (next_part(r)) {
                continue;
            }
            break;
        }
        th_buf_add(&r->buf, chunk, (size_t)n);
        size_t used = 0;
        char *nl;
        while ((nl = memchr(r->buf.p + used, '\n', r->buf.n - used))) {
            give_line(r, out, r->buf.p + used, (size_t)(nl - r->buf.p) - used);
            used = (size_t)(nl - r->buf.p) + 1;
        }
        th_buf_consume(&r->buf, used);
    }
    if (r->cut && out->n == start) {
        return -1;
    }
    return out->n > start ? 1 : r->cut ? -1 : 0;
}

/* ---- rotation ---- */

static void drop_old(const char *path)
{
    const char *base = th_path_base(path);
    th_autofree char *dir = th_xstrndup(path, (size_t)(base - path));
    th_autofree char *prefix = th_xasprintf("%s.", base);
    th_autostrv struct th_strv names = TH_STRV_INIT, old = TH_STRV_INIT;
    if (th_io_list(dir, &names, NULL) < 0) {
        return;
    }
    for (size_t i = 0; i < names.n; i++) {
        if (th_startswith(names.v[i], prefix)) {
            th_strv_add(&old, names.v[i]);
        }
    }
    for (size_t i = 0; i + (TH_LIMIT_CONTAINER_LOG_FILES - 1) < old.n; i++) {
        th_autofree char *f = th_path_join(dir, old.v[i]);
        (void)unlink(f);
    }
}

static void rotate_one(const char *path, const char *bundle)
{
    struct stat st;
    if (!path || !bundle || stat(path, &st) < 0 || st.st_size < (off_t)TH_LIMIT_CONTAINER_LOG_B) {
        return;
    }
    char t[TH_TIME_LEN];
    (void)th_time_format(th_now_ms(), t);
    char stamp[TH_TIME_LEN];
    size_t n = 0;
    for (const char *c = t; *c && *c != 'Z'; c++) {
        if (*c == 'T') {
            stamp[n++] = '-';
        } else if (*c != '-' && *c != ':') {
            stamp[n++] = *c;
        }
    }
    stamp[n] = 0;
    th_autofree char *to = th_xasprintf("%s.%s", path, stamp);
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    if (rename(path, to) < 0 || rt_reopen_log(bundle, &err) < 0) {
        th_warn(NODE_MOD, "log not rotated", "path=%s err=%s", path, th_log_q(err.msg ? err.msg : "rename"));
        return;
    }
    drop_old(path);
}

void logs_rotate(struct agent *a)
{
    th_autostrv struct th_strv paths = TH_STRV_INIT, dirs = TH_STRV_INIT;
    pthread_mutex_lock(&a->mu);
    struct th_hmap_entry *e;
    for (size_t it = 0; (e = th_hmap_next(&a->pods, &it));) {
        struct pod *p = e->value;
        pthread_mutex_lock(&p->mu);
        for (size_t i = 0; i < p->n_views; i++) {
            if (p->views[i].running && p->views[i].log_path) {
                th_strv_add(&paths, p->views[i].log_path);
                th_strv_add(&dirs, p->views[i].dir);
            }
        }
        pthread_mutex_unlock(&p->mu);
    }
    pthread_mutex_unlock(&a->mu);
    for (size_t i = 0; i < paths.n; i++) {
        rotate_one(paths.v[i], dirs.v[i]);
    }
}
