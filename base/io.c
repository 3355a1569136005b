/* Files, folders and descriptors.
 *
 * Problem: state files must survive a power cut at any instruction; removal must not be led
 * astray by links that a container left behind; reads must not swallow unbounded input. Design:
 * whole files in and out, one call each, with a limit on the way in and temporary-file-plus-rename
 * on the way out.
 *
 * th_io_rm_rf works on descriptors (openat, O_NOFOLLOW), so a path component that is swapped for a
 * link while it runs leads nowhere. It holds one descriptor per level; below DEPTH_MAX levels it
 * moves a subtree up beside the root of the removal and takes it from there, so that no depth of
 * nesting exhausts descriptors or the stack. A folder on another mount is left alone and reported.
 *
 * Limits: th_io_lock waits in real time, whatever the clock of base/clock.h says, for the other
 * process does not share our simulated one.
 */
#include "base/io.h"

#include "base/clock.h"
#include "base/rand.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <time.h>

#define DEPTH_MAX 64

static int fail_path(struct th_err *err, int e, const char *what, const char *path)
{
    enum th_reason r = e == ENOENT || e == ENOTDIR ? TH_R_NOT_FOUND : TH_R_IO;
    return th_fail_errno(err, e, r, "%s %s", what, path);
}

int th_io_read_fd(int fd, size_t max, struct th_buf *b, struct th_err *err)
{
    size_t before = b->n;
    struct stat st;
    size_t chunk = 4096;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0 &&
        (uint64_t)st.st_size <= max) {
        chunk = (size_t)st.st_size + 1; /* one more byte, so that the end is seen in one read */
    }
    for (;;) {
        size_t got = b->n - before;
        /* one byte past max is asked for, to tell "exactly max" from "more" */
        size_t want = max - got < chunk ? max - got + 1 : chunk;
        th_buf_reserve(b, want);
        ssize_t r = read(fd, b->p + b->n, want);
        if (r < 0 && errno == EINTR) {
            continue;
        }
        if (r < 0) {
            int e = errno;
            th_buf_truncate(b, before);
            return th_fail_errno(err, e, TH_R_IO, "reading");
        }
        b->n += (size_t)r;
        b->p[b->n] = '\0';
        if (b->n - before > max) {
            th_buf_truncate(b, before);
            return th_fail(err, TH_R_TOO_LARGE, "more than %zu bytes", max);
        }
        if (r == 0) {
            return 0;
        }
        if (chunk < 65536) {
            chunk *= 2;
        }
    }
}

int th_io_read_file(const char *path, size_t max, struct th_buf *b, struct th_err *err)
{
    th_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0) {
        return fail_path(err, errno, "opening", path);
    }
    int r = th_io_read_fd(fd, max, b, err);
    if (r < 0 && err) {
        (void)th_wrap(err, "%s", path);
    }
    return r;
}

int th_io_write_all(int fd, const void *p, size_t n, struct th_err *err)
{
    const char *at = p;
    while (n > 0) {
        ssize_t w = write(fd, at, n);
        if (w < 0 && errno == EINTR) {
            continue;
        }
        if (w < 0) {
            return th_fail_errno(err, errno, TH_R_IO, "writing");
        }
        at += w;
        n -= (size_t)w;
    }
    return 0;
}

int th_io_write_file(const char *path, const void *p, size_t n, mode_t mode, struct th_err *err)
{
    th_autoclose int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY, mode);
    if (fd < 0) {
        return fail_path(err, errno, "opening", path);
    }
    /* One write: cgroup and proc files take each write(2) as one command. */
    ssize_t w;
    do {
        w = write(fd, p, n);
    } while (w < 0 && errno == EINTR);
    if (w < 0) {
        return fail_path(err, errno, "writing", path);
    }
    return th_io_write_all(fd, (const char *)p + w, n - (size_t)w, err);
}

/* The folder that holds path: "." when it names none. The caller frees. */
static char *parent_of(const char *path)
{
    const char *base = th_path_base(path);
    if (base == path) {
        return th_xstrdup(".");
    }
    size_t n = (size_t)(base - path);
    return th_xstrndup(path, n > 1 ? n - 1 : n);
}

static int write_and_rename(int dir, const char *tmp, const char *name, const void *p, size_t n,
                            mode_t mode, struct th_err *err)
{
    th_autoclose int fd = openat(dir, tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        return fail_path(err, errno, "creating", tmp);
    }
    int r = th_io_write_all(fd, p, n, err);
    if (r == 0 && (fchmod(fd, mode) != 0 || fsync(fd) != 0 || renameat(dir, tmp, dir, name) != 0)) {
        r = th_fail_errno(err, errno, TH_R_IO, "writing %s", name);
    }
    if (r < 0) {
        (void)unlinkat(dir, tmp, 0);
        return r;
    }
    /* without this the name, unlike the content, could be lost in a power cut */
    return fsync(dir) == 0 ? 0 : th_fail_errno(err, errno, TH_R_IO, "syncing folder of %s", name);
}

int th_io_write_atomic(const char *path, const void *p, size_t n, mode_t mode, struct th_err *err)
{
    th_autofree char *parent = parent_of(path);
    th_autoclose int dir = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0) {
        return fail_path(err, errno, "opening", parent);
    }
    const char *name = th_path_base(path);
    th_autofree char *tmp =
        th_xasprintf(".%.200s.%016llx", name, (unsigned long long)th_rand_u64());
    int r = write_and_rename(dir, tmp, name, p, n, mode, err);
    if (r < 0 && err) {
        (void)th_wrap(err, "%s", path);
    }
    return r;
}

int th_io_mkdir_p(const char *path, mode_t mode, struct th_err *err)
{
    th_autofree char *copy = th_xstrdup(path);
    for (char *p = copy;;) {
        p += strspn(p, "/");
        p += strcspn(p, "/");
        char c = *p;
        *p = '\0';
        if (*copy && mkdir(copy, mode) != 0 && errno != EEXIST) {
            return fail_path(err, errno, "making folder", copy);
        }
        if (c == '\0') {
            break;
        }
        *p = c;
    }
    struct stat st;
    if (stat(path, &st) != 0 || !S_ISDIR(st.st_mode)) {
        return fail_path(err, ENOTDIR, "making folder", path);
    }
    return 0;
}

struct removal {
    uint64_t dev; /* of the root of the removal */
    int top;      /* that root, where deep subtrees are moved to */
    struct th_err *err;
};

/* Fails when name (or the folder dir itself, when name is "") is a mount point. */
static int refuse_mount(const struct removal *rm, int dir, const char *name)
{
    struct statx x;
    int flags = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | (*name ? 0 : AT_EMPTY_PATH);
    if (statx(dir, name, flags, STATX_TYPE, &x) != 0) {
        return th_fail_errno(rm->err, errno, TH_R_IO, "looking at %s", name);
    }
    /* kernels before 5.8 do not tell mount points; the device gives away all but bind mounts */
    bool mount = x.stx_attributes_mask & STATX_ATTR_MOUNT_ROOT
                     ? x.stx_attributes & STATX_ATTR_MOUNT_ROOT
                     : makedev(x.stx_dev_major, x.stx_dev_minor) != rm->dev;
    return mount ? th_fail(rm->err, TH_R_IO, "%s is a mount point", *name ? name : "it") : 0;
}

static int empty_folder(struct removal *rm, int fd, unsigned depth);

static int remove_folder(struct removal *rm, int dir, const char *name, unsigned depth)
{
    TH_TRY(refuse_mount(rm, dir, name));
    if (depth >= DEPTH_MAX) {
        char up[40];
        (void)snprintf(up, sizeof(up), ".thimble-rm-%016llx", (unsigned long long)th_rand_u64());
        if (renameat(dir, name, rm->top, up) == 0) {
            return 0; /* the loop over the top folder meets it again */
        }
        return th_fail_errno(rm->err, errno, TH_R_IO, "moving %s", name);
    }
    int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 && errno == EACCES) {
        (void)fchmodat(dir, name, 0700, 0);
        fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    }
    if (fd < 0) {
        return errno == ENOENT ? 0 : th_fail_errno(rm->err, errno, TH_R_IO, "opening %s", name);
    }
    TH_TRY(empty_folder(rm, fd, depth));
    if (unlinkat(dir, name, AT_REMOVEDIR) != 0 && errno != ENOENT) {
        return th_fail_errno(rm->err, errno, TH_R_IO, "removing %s", name);
    }
    return 0;
}

/* Removes one name that may be a file or a folder. */
static int remove_name(struct removal *rm, int dir, const char *name, unsigned depth)
{
    if (unlinkat(dir, name, 0) == 0 || errno == ENOENT) {
        return 0;
    }
    int e = errno;
    struct stat st;
    if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode)) {
        return remove_folder(rm, dir, name, depth);
    }
    if (e == EACCES && fchmod(dir, 0700) == 0 && unlinkat(dir, name, 0) == 0) {
        return 0; /* a folder of ours that denied writing */
    }
    return th_fail_errno(rm->err, e, TH_R_IO, "removing %s", name);
}

/* Takes fd. Goes round again while something was removed, since moved-up subtrees may land behind
 * the position of readdir. */
static int empty_folder(struct removal *rm, int fd, unsigned depth)
{
    DIR *d = fdopendir(fd);
    TH_ASSERT(d);
    int r = 0;
    bool again;
    do {
        again = false;
        rewinddir(d);
        struct dirent *e;
        while (r == 0 && (e = readdir(d))) {
            if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) {
                r = remove_name(rm, fd, e->d_name, depth + 1);
                again = true;
            }
        }
    } while (r == 0 && again);
    (void)closedir(d);
    return r;
}

int th_io_rm_rf(const char *path, struct th_err *err)
{
    if (unlink(path) == 0 || errno == ENOENT || errno == ENOTDIR) {
        return 0;
    }
    int e = errno;
    struct stat st;
    if (lstat(path, &st) != 0 || !S_ISDIR(st.st_mode)) {
        return th_fail_errno(err, e, TH_R_IO, "removing %s", path);
    }
    th_autoclose int top = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (top < 0 && errno == EACCES && chmod(path, 0700) == 0) {
        top = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    }
    if (top < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "removing %s", path);
    }
    struct removal rm = {.dev = st.st_dev, .top = top, .err = err};
    int r = refuse_mount(&rm, top, "");
    if (r == 0) {
        r = empty_folder(&rm, fcntl(top, F_DUPFD_CLOEXEC, 3), 0);
    }
    if (r == 0 && rmdir(path) != 0 && errno != ENOENT) {
        r = th_fail_errno(err, errno, TH_R_IO, "removing %s", path);
    } else if (r < 0 && err) {
        (void)th_wrap(err, "removing %s", path);
    }
    return r;
}

bool th_io_exists(const char *path)
{
    return access(path, F_OK) == 0;
}

bool th_io_is_dir(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

int th_io_list(const char *path, struct th_strv *ret, struct th_err *err)
{
    DIR *d = opendir(path);
    if (!d) {
        return fail_path(err, errno, "listing", path);
    }
    struct th_strv names = TH_STRV_INIT;
    struct dirent *e;
    while (errno = 0, (e = readdir(d))) {
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) {
            th_strv_add(&names, e->d_name);
        }
    }
    int failure = errno;
    (void)closedir(d);
    if (failure) {
        th_strv_done(&names);
        return fail_path(err, failure, "listing", path);
    }
    th_strv_sort(&names);
    for (size_t i = 0; i < names.n; i++) {
        th_strv_take(ret, names.v[i]);
    }
    free(names.v);
    return 0;
}

/* Whether fd is still what path names: the file may have been removed by who held the lock. */
static bool still_named(int fd, const char *path)
{
    struct stat a;
    struct stat b;
    return fstat(fd, &a) == 0 && stat(path, &b) == 0 && a.st_ino == b.st_ino &&
           a.st_dev == b.st_dev;
}

int th_io_lock(const char *path, int64_t wait_ms, int *ret_fd, struct th_err *err)
{
    int64_t deadline = th_mono_real_ms() + wait_ms;
    long nap_ms = 1;
    for (;;) {
        th_autoclose int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        if (fd < 0) {
            return fail_path(err, errno, "opening lock", path);
        }
        if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
            if (still_named(fd, path)) {
                *ret_fd = th_steal_fd(&fd);
                return 0;
            }
            continue;
        }
        if (errno != EWOULDBLOCK && errno != EINTR) {
            return fail_path(err, errno, "locking", path);
        }
        int64_t left = deadline - th_mono_real_ms();
        if (left <= 0) {
            return th_fail(err, TH_R_LOCKED, "%s is held by another process", path);
        }
        nap_ms = nap_ms < left ? nap_ms : (long)left;
        (void)nanosleep(&(struct timespec){.tv_nsec = nap_ms * 1000000}, NULL);
        nap_ms = nap_ms < 25 ? nap_ms * 2 : 50;
    }
}

int th_io_set_nonblock(int fd, bool on)
{
    int flags = fcntl(fd, F_GETFL);
    return flags < 0 ? -1 : fcntl(fd, F_SETFL, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK);
}

int th_io_set_cloexec(int fd, bool on)
{
    return fcntl(fd, F_SETFD, on ? FD_CLOEXEC : 0);
}

/* ---- paths ---- */

char *th_path_join(const char *a, const char *b)
{
    size_t n = strlen(a);
    while (n > 1 && a[n - 1] == '/') {
        n--;
    }
    b += strspn(b, "/");
    if (n == 0) {
        return th_xstrndup(b, strlen(b));
    }
    return th_xasprintf("%.*s%s%s", (int)n, a, a[n - 1] == '/' || !*b ? "" : "/", b);
}

char *th_path_joinf(const char *a, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    th_autofree char *b = th_xvasprintf(fmt, ap);
    va_end(ap);
    return th_path_join(a, b);
}

const char *th_path_base(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

bool th_path_is_inside(const char *rel)
{
    if (*rel == '/') {
        return false;
    }
    for (;;) {
        size_t n = strcspn(rel, "/");
        if (n == 2 && rel[0] == '.' && rel[1] == '.') {
            return false;
        }
        if (rel[n] == '\0') {
            return true;
        }
        rel += n + 1;
    }
}

/* ---- Unix sockets ---- */

/* Fills the address; a long path goes through a descriptor of its folder, given back in *ret_dir,
 * which must stay open while the address is used. */
static int unix_address(const char *path, struct sockaddr_un *ret, int *ret_dir, struct th_err *err)
{
    *ret = (struct sockaddr_un){.sun_family = AF_UNIX};
    size_t n = strlen(path);
    if (n < sizeof(ret->sun_path)) {
        memcpy(ret->sun_path, path, n + 1);
        return 0;
    }
    th_autofree char *parent = parent_of(path);
    th_autoclose int dir = open(parent, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0) {
        return fail_path(err, errno, "opening", parent);
    }
    int len = snprintf(ret->sun_path, sizeof(ret->sun_path), "/proc/self/fd/%d/%s", dir,
                       th_path_base(path));
    if (len >= (int)sizeof(ret->sun_path)) {
        return th_fail(err, TH_R_IO, "socket name too long: %s", path);
    }
    *ret_dir = th_steal_fd(&dir);
    return 0;
}

static int unix_socket(const char *path, struct sockaddr_un *ret, int *ret_dir, struct th_err *err)
{
    TH_TRY(unix_address(path, ret, ret_dir, err));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return fd >= 0 ? fd : th_fail_errno(err, errno, TH_R_IO, "socket");
}

static int connect_all(int fd, const struct sockaddr_un *a)
{
    int r;
    do {
        r = connect(fd, (const struct sockaddr *)a, sizeof(*a));
    } while (r != 0 && errno == EINTR);
    return r;
}

int th_io_unix_connect(const char *path, struct th_err *err)
{
    struct sockaddr_un a;
    th_autoclose int dir = -1;
    th_autoclose int fd = unix_socket(path, &a, &dir, err);
    if (fd < 0) {
        return fd;
    }
    if (connect_all(fd, &a) != 0) {
        int e = errno;
        enum th_reason r = e == ENOENT || e == ENOTDIR ? TH_R_NOT_FOUND
                           : e == ECONNREFUSED         ? TH_R_UNAVAILABLE
                                                       : TH_R_IO;
        return th_fail_errno(err, e, r, "connecting to %s", path);
    }
    return th_steal_fd(&fd);
}

int th_io_unix_listen(const char *path, mode_t mode, int backlog, struct th_err *err)
{
    struct sockaddr_un a;
    th_autoclose int dir = -1;
    th_autoclose int fd = unix_socket(path, &a, &dir, err);
    if (fd < 0) {
        return fd;
    }
    /* Linux gives the node the socket's mode, so there is no moment at which it is too open. */
    (void)fchmod(fd, mode);
    int r = bind(fd, (struct sockaddr *)&a, sizeof(a));
    if (r != 0 && errno == EADDRINUSE) {
        th_autoclose int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (probe < 0 || connect_all(probe, &a) == 0 || errno != ECONNREFUSED) {
            return th_fail(err, TH_R_ALREADY_RUNNING, "another process serves %s", path);
        }
        (void)unlink(path); /* left behind by a process that was killed */
        r = bind(fd, (struct sockaddr *)&a, sizeof(a));
    }
    if (r != 0) {
        return fail_path(err, errno, "binding", path);
    }
    if (chmod(path, mode) != 0 || listen(fd, backlog) != 0) {
        return fail_path(err, errno, "listening on", path);
    }
    return th_steal_fd(&fd);
}
