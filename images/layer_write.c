/* A folder as a layer: the same tree always gives the same bytes.
 *
 * Names are sorted bytewise, folders come before what they hold, times are whole seconds, owners
 * are numbers only. With `whiteouts` the folder is an overlay's upper: its character devices 0:0
 * and opaque folders become Docker's .wh. files again. Overlay's own xattrs never leave.
 *
 * Hard links inside the folder stay hard links: the first name in the order carries the data.
 */
#include "images/layer.h"
#include "base/hmap.h"
#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

struct walk {
    const struct th_layer_write_opts *o;
    struct th_tar_writer *w;
    struct th_layer_stat st;
    struct th_hmap links; /* "dev:ino" -> first path in the archive */
};

static bool xattr_kept(const char *name)
{
    return th_streq(name, "security.capability") || th_startswith(name, "user.") ||
           th_startswith(name, "system.posix_acl_");
}

static int cmp_xattr(const void *a, const void *b)
{
    return strcmp(((const struct th_tar_xattr *)a)->name, ((const struct th_tar_xattr *)b)->name);
}

static void read_xattrs(const char *procpath, struct th_tar_entry *e)
{
    char names[8192];
    ssize_t n = llistxattr(procpath, names, sizeof(names));
    size_t cap = 0;
    for (ssize_t i = 0; i < n; i += (ssize_t)strlen(names + i) + 1) {
        char value[65536];
        if (!xattr_kept(names + i)) {
            continue;
        }
        ssize_t k = lgetxattr(procpath, names + i, value, sizeof(value));
        if (k < 0) {
            continue;
        }
        e->xattrs = th_xgrow(e->xattrs, &cap, e->n_xattrs + 1, sizeof(*e->xattrs));
        e->xattrs[e->n_xattrs++] = (struct th_tar_xattr){
            .name = th_xstrdup(names + i), .value = th_xmemdup(value, (size_t)k), .n = (size_t)k};
    }
    if (e->n_xattrs > 1) {
        qsort(e->xattrs, e->n_xattrs, sizeof(*e->xattrs), cmp_xattr);
    }
}

static int fill(struct walk *k, int dirfd, const char *name, const struct stat *st,
                struct th_tar_entry *e, struct th_err *err)
{
    e->mode = st->st_mode & 07777;
    e->uid = k->o->owner_root ? 0 : st->st_uid;
    e->gid = k->o->owner_root ? 0 : st->st_gid;
    e->mtime_s = st->st_mtim.tv_sec;
    if (k->o->mtime_fixed || (k->o->mtime_max_s && e->mtime_s > k->o->mtime_max_s)) {
        e->mtime_s = k->o->mtime_max_s;
    }
    switch (st->st_mode & S_IFMT) {
    case S_IFREG:
        e->type = TH_TAR_REG;
        e->size = (uint64_t)st->st_size;
        break;
    case S_IFDIR:
        e->type = TH_TAR_DIR;
        break;
    case S_IFLNK: {
        char target[4097];
        ssize_t n = readlinkat(dirfd, name, target, sizeof(target) - 1);
        if (n < 0) {
            return th_fail_errno(err, errno, TH_R_IO, "read link %s", e->path);
        }
        e->type = TH_TAR_SYMLINK;
        e->link = th_xstrndup(target, (size_t)n);
        break;
    }
    case S_IFCHR:
    case S_IFBLK:
        e->type = S_ISCHR(st->st_mode) ? TH_TAR_CHAR : TH_TAR_BLOCK;
        e->dev_major = major(st->st_rdev);
        e->dev_minor = minor(st->st_rdev);
        break;
    default:
        e->type = TH_TAR_FIFO;
        break;
    }
    th_autofree char *p = th_xasprintf("/proc/self/fd/%d/%s", dirfd, name);
    read_xattrs(p, e);
    return 0;
}

static int write_data(struct walk *k, int dirfd, const char *name, const struct th_tar_entry *e,
                      struct th_err *err)
{
    th_autoclose int fd = openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "open %s", e->path);
    }
    th_autofree char *buf = th_xmalloc(TH_IO_COPY_BUF);
    uint64_t left = e->size;
    while (left > 0) {
        ssize_t n = read(fd, buf, left < TH_IO_COPY_BUF ? (size_t)left : TH_IO_COPY_BUF);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return th_fail(err, TH_R_IO, "%s changed while it was read", e->path);
        }
        TH_TRY(th_tar_write_data(k->w, buf, (size_t)n, err));
        left -= (uint64_t)n;
    }
    k->st.bytes += e->size;
    return 0;
}

static int write_empty(struct walk *k, char *path, struct th_err *err)
{
    struct th_tar_entry e = {.type = TH_TAR_REG, .path = path, .mode = 0};
    k->st.entries++;
    return th_tar_write_entry(k->w, &e, err);
}

static int write_dir(struct walk *k, int fd, const char *rel, struct th_err *err);

static char *arch_path(const struct walk *k, const char *rel)
{
    return k->o->prefix ? th_xasprintf("%s/%s", k->o->prefix, rel) : th_xstrdup(rel);
}

static int write_node(struct walk *k, int dirfd, const char *name, const char *rel,
                      const struct stat *st, struct th_err *err)
{
    struct th_tar_entry e = {.path = arch_path(k, rel)};
    int r = fill(k, dirfd, name, st, &e, err);
    if (r == 0 && e.type != TH_TAR_DIR && st->st_nlink > 1) {
        char key[64];
        (void)snprintf(key, sizeof(key), "%llx:%llx", (unsigned long long)st->st_dev,
                       (unsigned long long)st->st_ino);
        const char *first = th_hmap_get(&k->links, key);
        if (first) {
            e.type = TH_TAR_HARDLINK;
            free(e.link);
            e.link = th_xstrdup(first);
            e.size = 0;
        } else {
            th_hmap_set(&k->links, key, th_xstrdup(e.path));
        }
    }
    if (r == 0) {
        k->st.entries++;
        r = th_tar_write_entry(k->w, &e, err);
    }
    if (r == 0 && e.type == TH_TAR_REG && e.size > 0) {
        r = write_data(k, dirfd, name, &e, err);
    }
    th_tar_entry_done(&e);
    return r;
}

static int write_child(struct walk *k, int dirfd, const char *name, const char *rel,
                       struct th_err *err)
{
    struct stat st;
    if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "%s", rel);
    }
    if (S_ISSOCK(st.st_mode) ||
        (k->o->filter && !k->o->filter(k->o->filter_arg, rel, S_ISDIR(st.st_mode)))) {
        return 0;
    }
    if (k->o->whiteouts && S_ISCHR(st.st_mode) && st.st_rdev == makedev(0, 0)) {
        th_autofree char *plain = arch_path(k, rel);
        char *slash = strrchr(plain, '/');
        th_autofree char *wh =
            slash ? th_xasprintf("%.*s/.wh.%s", (int)(slash - plain), plain, slash + 1)
                  : th_xasprintf(".wh.%s", plain);
        return write_empty(k, wh, err);
    }
    TH_TRY(write_node(k, dirfd, name, rel, &st, err));
    if (!S_ISDIR(st.st_mode)) {
        return 0;
    }
    th_autoclose int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "open %s", rel);
    }
    char v = 0;
    if (k->o->whiteouts && fgetxattr(fd, "trusted.overlay.opaque", &v, 1) == 1 && v == 'y') {
        th_autofree char *p = arch_path(k, rel);
        th_autofree char *wh = th_xasprintf("%s/.wh..wh..opq", p);
        TH_TRY(write_empty(k, wh, err));
    }
    return write_dir(k, fd, rel, err);
}

static int write_dir(struct walk *k, int fd, const char *rel, struct th_err *err)
{
    th_autofree char *self = th_xasprintf("/proc/self/fd/%d", fd);
    th_autostrv struct th_strv names = TH_STRV_INIT;
    TH_TRY(th_io_list(self, &names, err));
    for (size_t i = 0; i < names.n; i++) {
        th_autofree char *child =
            *rel ? th_xasprintf("%s/%s", rel, names.v[i]) : th_xstrdup(names.v[i]);
        TH_TRY(write_child(k, fd, names.v[i], child, err));
    }
    return 0;
}

int th_layer_write(const char *dir, const struct th_layer_write_opts *opts,
                   struct th_tar_writer *w, struct th_layer_stat *ret, struct th_err *err)
{
    th_autoclose int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "open %s", dir);
    }
    struct walk k = {.o = opts, .w = w};
    th_hmap_init(&k.links, free);
    int r = write_dir(&k, fd, "", err);
    th_hmap_done(&k.links);
    if (r == 0 && ret) {
        *ret = k.st;
    }
    return r;
}
