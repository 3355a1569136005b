/* Unpacking a layer into a folder, against an archive that means harm.
 *
 * Every path of the archive is cleaned first (leading slashes and "." fall away, ".." is refused).
 * Its parent is then opened with openat2(RESOLVE_IN_ROOT): the kernel resolves symbolic links as
 * if `dir` were "/", so that a link to /etc or ../../.. ends inside dir, with no race between check
 * and use. The last component is only ever touched through the parent's descriptor with calls that
 * do not follow links. Hard links resolve their target the same way.
 *
 * Whiteouts: Docker writes "a was removed" as an empty file .wh.a, "nothing below shows" as
 * .wh..wh..opq; overlay wants a character device 0:0 and the xattr trusted.overlay.opaque. A
 * whiteout speaks of the layers below, never of what this layer itself brings: "a removed and made
 * again" is an opaque folder, or simply the new file.
 *
 * Folders get their mode and time at the end, since filling them changes the one and may need more
 * than the other. Of extended attributes only those that mean something inside a container are
 * taken: nothing of trusted.* can come from an archive, or it could forge overlay's own marks.
 *
 * Upstream difference: entries below a symbolic link that only exists in a lower layer make a real
 * folder here (as Docker's overlay driver does), since one layer is unpacked without the others.
 */
#include "images/layer.h"
#include "base/io.h"
#include "base/limits.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#define OPAQUE_XATTR "trusted.overlay.opaque"

struct dir_meta {
    char *path; /* "" for the root */
    struct timespec mtime;
    uint32_t mode;
};

struct apply {
    int root;
    const struct th_layer_apply_opts *o;
    struct th_layer_stat st;
    uint64_t max_bytes, max_entries;
    /* the parent last used: most entries follow their folder */
    char *cached;
    int cached_fd;
    struct dir_meta *dirs;
    size_t n_dirs, cap_dirs;
};

static int bad(struct th_err *err, const char *path, const char *why)
{
    (void)th_fail(err, TH_R_BAD_ARCHIVE, "layer entry \"%.200s\" %s", path, why);
    return th_hint(err, "the image is damaged or hostile; get it again from its source");
}

static int open_in_root(int root, const char *path, int flags)
{
    struct open_how how = {.flags = (uint64_t)(flags | O_CLOEXEC),
                           .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
    for (int tries = 0;; tries++) {
        int fd = (int)syscall(SYS_openat2, root, *path ? path : ".", &how, sizeof(how));
        if (fd >= 0 || errno != EAGAIN || tries == 16) {
            return fd;
        }
    }
}

static void forget_parent(struct apply *a)
{
    if (a->cached_fd >= 0) {
        (void)close(a->cached_fd);
    }
    a->cached_fd = -1;
    free(a->cached);
    a->cached = NULL;
}

/* "a//./b/" to "a/b"; "" is the root. NULL when a part is "..". */
static char *clean_path(const char *p)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    while (*p) {
        size_t n = strcspn(p, "/");
        if (n == 2 && p[0] == '.' && p[1] == '.') {
            return NULL;
        }
        if (n > 0 && !(n == 1 && p[0] == '.')) {
            if (b.n > 0) {
                th_buf_putc(&b, '/');
            }
            th_buf_add(&b, p, n);
        }
        p += n;
        p += *p == '/';
    }
    return b.n ? th_buf_steal(&b, NULL) : th_xstrdup("");
}

/* Opens the folder `path`, making what is missing on the way. */
static int open_dir_make(struct apply *a, const char *path, struct th_err *err)
{
    int fd = open_in_root(a->root, path, O_PATH | O_DIRECTORY);
    if (fd >= 0) {
        return fd;
    }
    if (errno != ENOENT) {
        return bad(err, path, errno == ENOTDIR ? "lies below something that is not a folder"
                                               : "cannot be reached inside the image");
    }
    th_autofree char *upto = th_xstrdup(path);
    th_autoclose int at = open_in_root(a->root, "", O_PATH | O_DIRECTORY);
    for (char *p = upto; at >= 0 && *p;) {
        char *end = p + strcspn(p, "/");
        char keep = *end;
        *end = 0;
        if (mkdirat(at, p, 0755) < 0 && errno != EEXIST) {
            return th_fail_errno(err, errno, TH_R_IO, "make folder %s", upto);
        }
        int next = open_in_root(a->root, upto, O_PATH | O_DIRECTORY);
        (void)close(at);
        at = next;
        *end = keep;
        p = end + (keep == '/');
    }
    if (at < 0) {
        return bad(err, path, "lies below a link that leads nowhere");
    }
    return th_steal_fd(&at);
}

/* Borrowed descriptor of the parent of `path`; *ret_base points into path. */
static int parent_of(struct apply *a, char *path, const char **ret_base, struct th_err *err)
{
    char *slash = strrchr(path, '/');
    *ret_base = slash ? slash + 1 : path;
    th_autofree char *dir = slash ? th_xstrndup(path, (size_t)(slash - path)) : th_xstrdup("");
    if (a->cached_fd >= 0 && th_streq(a->cached, dir)) {
        return a->cached_fd;
    }
    int fd = open_dir_make(a, dir, err);
    if (fd < 0) {
        return fd;
    }
    forget_parent(a);
    a->cached_fd = fd;
    a->cached = th_steal(&dir);
    return fd;
}

static int set_opaque(int parent, const char *name, struct th_err *err)
{
    th_autoclose int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fsetxattr(fd, OPAQUE_XATTR, "y", 1, 0) < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "mark folder %s opaque", name);
    }
    return 0;
}

static int whiteout(int parent, const char *base, struct th_err *err)
{
    const char *name = base + 4;
    if (th_streq(name, ".wh..opq")) {
        return set_opaque(parent, ".", err);
    }
    if (th_startswith(name, ".wh.")) {
        return 0; /* aufs' own book-keeping */
    }
    if (*name == 0 || th_streq(name, ".") || th_streq(name, "..")) {
        return bad(err, base, "is not a valid whiteout");
    }
    struct stat st;
    if (fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) == 0) {
        return S_ISDIR(st.st_mode) ? set_opaque(parent, name, err) : 0;
    }
    if (mknodat(parent, name, S_IFCHR, makedev(0, 0)) < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "make whiteout %s", name);
    }
    return 0;
}

static bool is_whiteout(const struct stat *st)
{
    return S_ISCHR(st->st_mode) && st->st_rdev == makedev(0, 0);
}

/* Makes way for an entry. *ret_keep: an existing folder stays; *ret_opaque: one that was removed
 * in the layers below and is made again. */
static int make_way(struct apply *a, int parent, const char *base, bool want_dir, bool *ret_keep,
                    bool *ret_opaque, struct th_err *err)
{
    struct stat st;
    *ret_keep = *ret_opaque = false;
    if (fstatat(parent, base, &st, AT_SYMLINK_NOFOLLOW) < 0) {
        return errno == ENOENT ? 0 : th_fail_errno(err, errno, TH_R_IO, "%s", base);
    }
    if (S_ISDIR(st.st_mode) && want_dir) {
        *ret_keep = true;
        return 0;
    }
    *ret_opaque = want_dir && a->o->whiteouts && is_whiteout(&st);
    if (!S_ISDIR(st.st_mode)) {
        if (unlinkat(parent, base, 0) < 0) {
            return th_fail_errno(err, errno, TH_R_IO, "replace %s", base);
        }
        return 0;
    }
    th_autofree char *p = th_xasprintf("/proc/self/fd/%d/%s", parent, base);
    return th_io_rm_rf(p, err);
}

static bool xattr_wanted(const char *name)
{
    return th_streq(name, "security.capability") || th_startswith(name, "user.") ||
           th_streq(name, "system.posix_acl_access") || th_streq(name, "system.posix_acl_default");
}

/* Owner, xattrs, mode, time of what has just been made (mode and time of folders come later). */
static int set_meta(struct apply *a, int parent, const char *base, const struct th_tar_entry *e,
                    struct th_err *err)
{
    if (a->o->keep_owner &&
        fchownat(parent, base, e->uid, e->gid, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "set owner of %s", e->path);
    }
    th_autofree char *p = th_xasprintf("/proc/self/fd/%d/%s", parent, base);
    for (size_t i = 0; a->o->keep_xattrs && i < e->n_xattrs; i++) {
        const struct th_tar_xattr *x = &e->xattrs[i];
        if (!xattr_wanted(x->name)) {
            continue;
        }
        if (lsetxattr(p, x->name, x->value, x->n, 0) < 0 && errno != ENOTSUP && errno != EPERM) {
            return th_fail_errno(err, errno, TH_R_IO, "set %s of %s", x->name, e->path);
        }
    }
    if (e->type != TH_TAR_SYMLINK && e->type != TH_TAR_DIR && fchmodat(parent, base, e->mode, 0) < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "set mode of %s", e->path);
    }
    struct timespec t[2] = {{e->mtime_s, e->mtime_ns}, {e->mtime_s, e->mtime_ns}};
    if (e->type != TH_TAR_DIR && utimensat(parent, base, t, AT_SYMLINK_NOFOLLOW) < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "set time of %s", e->path);
    }
    return 0;
}

static void later(struct apply *a, const char *path, const struct th_tar_entry *e)
{
    a->dirs = th_xgrow(a->dirs, &a->cap_dirs, a->n_dirs + 1, sizeof(*a->dirs));
    a->dirs[a->n_dirs++] = (struct dir_meta){.path = th_xstrdup(path),
                                             .mtime = {e->mtime_s, e->mtime_ns},
                                             .mode = e->mode};
}

static int finish_dirs(struct apply *a, struct th_err *err)
{
    for (size_t i = a->n_dirs; i-- > 0;) {
        const struct dir_meta *d = &a->dirs[i];
        th_autoclose int fd = open_in_root(a->root, d->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
        if (fd < 0) {
            continue; /* replaced by a later entry */
        }
        struct timespec t[2] = {d->mtime, d->mtime};
        if (fchmod(fd, d->mode) < 0 || futimens(fd, t) < 0) {
            return th_fail_errno(err, errno, TH_R_IO, "set mode and time of %s", d->path);
        }
    }
    return 0;
}

static int write_file(struct apply *a, int parent, const char *base, const struct th_tar_entry *e,
                      struct th_tar_reader *t, struct th_err *err)
{
    if (e->size > a->max_bytes - a->st.bytes) {
        (void)th_fail(err, TH_R_TOO_LARGE, "layer unpacks to more than %llu bytes",
                      (unsigned long long)a->max_bytes);
        return th_hint(err, "split the layer, or leave data out of the image");
    }
    th_autoclose int fd =
        openat(parent, base, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "make %s", e->path);
    }
    th_autofree char *buf = th_xmalloc(TH_IO_COPY_BUF);
    struct th_reader in = th_tar_data(t);
    for (;;) {
        ssize_t n = in.read(in.arg, buf, TH_IO_COPY_BUF, err);
        if (n <= 0) {
            a->st.bytes += n == 0 ? e->size : 0;
            return (int)n;
        }
        TH_TRY(th_io_write_all(fd, buf, (size_t)n, err));
    }
}

static int hard_link(struct apply *a, int parent, const char *base, const struct th_tar_entry *e,
                     struct th_err *err)
{
    th_autofree char *target = clean_path(e->link ? e->link : "");
    if (!target || !*target) {
        return bad(err, e->path, "is a hard link to outside the image");
    }
    char *slash = strrchr(target, '/');
    if (slash) {
        *slash = 0;
    }
    th_autoclose int tdir = open_in_root(a->root, slash ? target : "", O_PATH | O_DIRECTORY);
    if (tdir < 0 || linkat(tdir, slash ? slash + 1 : target, parent, base, 0) < 0) {
        if (tdir < 0 || errno == ENOENT || errno == EPERM || errno == EXDEV) {
            return bad(err, e->path, "is a hard link to a file that is not in the layer");
        }
        return th_fail_errno(err, errno, TH_R_IO, "link %s", e->path);
    }
    return 0;
}

static int make_node(struct apply *a, int parent, const char *base, const struct th_tar_entry *e,
                     struct th_tar_reader *t, struct th_err *err)
{
    mode_t kind = S_IFIFO;
    dev_t dev = 0;
    switch (e->type) {
    case TH_TAR_REG:
        return write_file(a, parent, base, e, t, err);
    case TH_TAR_HARDLINK:
        return hard_link(a, parent, base, e, err);
    case TH_TAR_SYMLINK:
        if (!e->link || !*e->link) {
            return bad(err, e->path, "is a link to nothing");
        }
        if (symlinkat(e->link, parent, base) < 0) {
            return th_fail_errno(err, errno, TH_R_IO, "make link %s", e->path);
        }
        return 0;
    case TH_TAR_DIR:
        if (mkdirat(parent, base, 0700) < 0) {
            return th_fail_errno(err, errno, TH_R_IO, "make folder %s", e->path);
        }
        return 0;
    case TH_TAR_CHAR:
    case TH_TAR_BLOCK:
        kind = e->type == TH_TAR_CHAR ? S_IFCHR : S_IFBLK;
        dev = makedev(e->dev_major, e->dev_minor);
        break;
    case TH_TAR_FIFO:
        break;
    }
    if (mknodat(parent, base, kind | 0600, dev) < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "make %s", e->path);
    }
    return 0;
}

static int apply_root(struct apply *a, const struct th_tar_entry *e, struct th_err *err)
{
    if (e->type != TH_TAR_DIR) {
        return bad(err, e->path, "would replace the root folder");
    }
    if (a->o->keep_owner && fchownat(a->root, "", e->uid, e->gid, AT_EMPTY_PATH) < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "set owner of the root folder");
    }
    later(a, "", e);
    return 0;
}

static int apply_entry(struct apply *a, const struct th_tar_entry *e, struct th_tar_reader *t,
                       struct th_err *err)
{
    if (++a->st.entries > a->max_entries) {
        return th_fail(err, TH_R_TOO_LARGE, "layer has more than %llu entries",
                       (unsigned long long)a->max_entries);
    }
    th_autofree char *path = clean_path(e->path);
    if (!path) {
        return bad(err, e->path, "leads outside the image (\"..\")");
    }
    if (!*path) {
        return apply_root(a, e, err);
    }
    const char *base = NULL;
    int parent = parent_of(a, path, &base, err);
    if (parent < 0) {
        return parent;
    }
    if (strlen(base) > 255) {
        return bad(err, e->path, "has a name of more than 255 bytes");
    }
    if (a->o->whiteouts && th_startswith(base, ".wh.")) {
        return whiteout(parent, base, err);
    }
    if (e->type == TH_TAR_CHAR && e->dev_major == 0 && e->dev_minor == 0) {
        return bad(err, e->path, "is a device 0:0, which overlay file systems keep for themselves");
    }
    if (a->o->skip_devices && (e->type == TH_TAR_CHAR || e->type == TH_TAR_BLOCK)) {
        return 0;
    }
    bool keep = false, opaque = false;
    TH_TRY(make_way(a, parent, base, e->type == TH_TAR_DIR, &keep, &opaque, err));
    if (!keep) {
        TH_TRY(make_node(a, parent, base, e, t, err));
    }
    if (e->type != TH_TAR_HARDLINK) {
        TH_TRY(set_meta(a, parent, base, e, err));
    }
    if (opaque) {
        TH_TRY(set_opaque(parent, base, err));
    }
    if (e->type == TH_TAR_DIR) {
        later(a, path, e);
    } else {
        /* this name may have been a folder on the cached parent's path */
        size_t n = strlen(path);
        if (a->cached && strncmp(a->cached, path, n) == 0) {
            forget_parent(a);
        }
    }
    return 0;
}

static int apply_all(struct apply *a, struct th_tar_reader *t, struct th_err *err)
{
    const struct th_tar_entry *e = NULL;
    int r = 0;
    while ((r = th_tar_next(t, &e, err)) > 0) {
        TH_TRY(apply_entry(a, e, t, err));
    }
    TH_TRY(r);
    return finish_dirs(a, err);
}

int th_layer_apply(struct th_reader in, const char *dir, const struct th_layer_apply_opts *opts,
                   struct th_layer_stat *ret, struct th_err *err)
{
    struct apply a = {.o = opts, .cached_fd = -1};
    a.max_bytes = opts->max_bytes ? opts->max_bytes : TH_LIMIT_LAYER_B;
    a.max_entries = opts->max_entries ? opts->max_entries : TH_LIMIT_LAYER_ENTRIES;
    th_autoclose int root = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (root < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "open %s", dir);
    }
    a.root = root;
    TH_AUTO(th_tar_reader) struct th_tar_reader *t = th_tar_reader_new(in);
    int r = apply_all(&a, t, err);
    forget_parent(&a);
    for (size_t i = 0; i < a.n_dirs; i++) {
        free(a.dirs[i].path);
    }
    free(a.dirs);
    TH_TRY(r);
    char sink[8192];
    ssize_t n = 0;
    while ((n = in.read(in.arg, sink, sizeof(sink), err)) > 0) {
    }
    TH_TRY((int)n);
    if (ret) {
        *ret = a.st;
    }
    return 0;
}
