/* Writing a volume of files so that readers see all of the old or all of the new.
 *
 *   <dir>/..2026_01_02_03_04_05.123456789/<files>   one generation
 *   <dir>/..data -> that folder                     swapped by rename
 *   <dir>/<first path part> -> ..data/<first part>  one link per top-level name
 *
 * This is upstream's AtomicWriter layout, which programs that watch for changes know. Nothing is
 * written when the content is the same as before. */
#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "base/rand.h"
#include "vm/node/agent.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

void vol_files_done(struct vol_files *f)
{
    for (size_t i = 0; i < f->n; i++) {
        free(f->v[i].path);
        th_buf_done(&f->v[i].data);
    }
    free(f->v);
    memset(f, 0, sizeof(*f));
}

struct vol_file *vol_files_add(struct vol_files *f, const char *path, mode_t mode)
{
    for (size_t i = 0; i < f->n; i++) { /* projected: a later source wins */
        if (th_streq(f->v[i].path, path)) {
            th_buf_clear(&f->v[i].data);
            f->v[i].mode = mode;
            f->v[i].uid = -1;
            return &f->v[i];
        }
    }
    f->v = th_xgrow(f->v, &f->cap, f->n + 1, sizeof(*f->v));
    f->v[f->n] = (struct vol_file){.path = th_xstrdup(path), .mode = mode, .uid = -1};
    return &f->v[f->n++];
}

static bool same_as_before(const char *data, const struct vol_files *f)
{
    for (size_t i = 0; i < f->n; i++) {
        th_autofree char *path = th_path_join(data, f->v[i].path);
        th_autobuf struct th_buf b = TH_BUF_INIT;
        if (th_io_read_file(path, f->v[i].data.n + 1, &b, NULL) < 0 || b.n != f->v[i].data.n ||
            (b.n && memcmp(b.p, f->v[i].data.p, b.n) != 0)) {
            return false;
        }
    }
    return true;
}

static void top_names(const struct vol_files *f, struct th_strv *ret)
{
    for (size_t i = 0; i < f->n; i++) {
        th_autofree char *top = th_xstrndup(f->v[i].path, strcspn(f->v[i].path, "/"));
        if (!th_strv_has(ret, top)) {
            th_strv_add(ret, top);
        }
    }
}

static int write_generation(const char *gen, const struct vol_files *f, int64_t gid,
                            struct th_err *err)
{
    TH_TRY(th_io_mkdir_p(gen, 0755, err));
    for (size_t i = 0; i < f->n; i++) {
        const struct vol_file *v = &f->v[i];
        if (!th_path_is_inside(v->path)) {
            return th_fail(err, TH_R_INVALID, "invalid path \"%s\"", v->path);
        }
        th_autofree char *path = th_path_join(gen, v->path);
        char *slash = strrchr(path, '/');
        *slash = 0;
        TH_TRY(th_io_mkdir_p(path, 0755, err));
        *slash = '/';
        TH_TRY(th_io_write_file(path, v->data.p, v->data.n, 0600, err));
        if (chown(path, v->uid >= 0 ? (uid_t)v->uid : (uid_t)-1, gid >= 0 ? (gid_t)gid : (gid_t)-1) < 0 ||
            chmod(path, v->mode) < 0) {
            return th_fail_errno(err, errno, TH_R_IO, "%s", path);
        }
    }
    return 0;
}

static void drop_stale(const char *dir, const char *keep_gen, const struct th_strv *tops)
{
    th_autostrv struct th_strv names = TH_STRV_INIT;
    if (th_io_list(dir, &names, NULL) < 0) {
        return;
    }
    for (size_t i = 0; i < names.n; i++) {
        const char *n = names.v[i];
        th_autofree char *path = th_path_join(dir, n);
        struct stat st;
        if (lstat(path, &st) < 0) {
            continue;
        }
        if (th_startswith(n, "..2") && S_ISDIR(st.st_mode) && !th_streq(n, keep_gen)) {
            (void)th_io_rm_rf(path, NULL);
        } else if (S_ISLNK(st.st_mode) && n[0] != '.' && !th_strv_has(tops, n)) {
            (void)unlink(path);
        } else if (S_ISLNK(st.st_mode) && n[0] == '.' && n[1] != '.' && !th_strv_has(tops, n)) {
            (void)unlink(path);
        }
    }
}

int vol_write(const char *dir, const struct vol_files *f, int64_t gid, bool *ret_changed,
              struct th_err *err)
{
    *ret_changed = false;
    TH_TRY(th_io_mkdir_p(dir, 0777, err));
    (void)chmod(dir, gid >= 0 ? 02777 : 0777);
    if (gid >= 0) {
        (void)!chown(dir, (uid_t)-1, (gid_t)gid);
    }
    th_autofree char *data = th_path_join(dir, "..data");
    th_autostrv struct th_strv tops = TH_STRV_INIT;
    top_names(f, &tops);
    th_autostrv struct th_strv before = TH_STRV_INIT;
    size_t links = 0;
    list_or_none(dir, &before);
    for (size_t i = 0; i < before.n; i++) {
        links += !th_startswith(before.v[i], "..");
    }
    if (th_io_exists(data) && links == tops.n && same_as_before(data, f)) {
        return 0;
    }
    int64_t us = th_now_us();
    char when[TH_TIME_LEN];
    (void)th_time_format(us / 1000, when);
    for (char *c = when; *c; c++) {
        *c = *c == '-' || *c == 'T' || *c == ':' ? '_' : *c == 'Z' ? 0 : *c;
        if (!*c) {
            break;
        }
    }
    th_autofree char *gen = th_xasprintf("..%s.%09llu", when, (unsigned long long)th_rand_below(1000000000));
    th_autofree char *gen_path = th_path_join(dir, gen);
    int r = write_generation(gen_path, f, gid, err);
    if (r < 0) {
        (void)th_io_rm_rf(gen_path, NULL);
        return r;
    }
    th_autofree char *tmp = th_path_join(dir, "..data_tmp");
    (void)unlink(tmp);
    if (symlink(gen, tmp) < 0 || rename(tmp, data) < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "%s", data);
    }
    for (size_t i = 0; i < tops.n; i++) {
        th_autofree char *link = th_path_join(dir, tops.v[i]);
        th_autofree char *target = th_path_join("..data", tops.v[i]);
        if (symlink(target, link) < 0 && errno != EEXIST) {
            return th_fail_errno(err, errno, TH_R_IO, "%s", link);
        }
    }
    drop_stale(dir, gen, &tops);
    *ret_changed = true;
    return 0;
}
