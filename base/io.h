#ifndef TH_BASE_IO_H
#define TH_BASE_IO_H
/* Files, folders and descriptors. Paths are UTF-8 C strings. */
#include "base/buf.h"
#include "base/err.h"
#include <sys/types.h>

/* The buffer of a loop that copies. From the heap: on the stack or thread-local, each of some seventy
 * threads would pay for it. */
#define TH_IO_COPY_BUF ((size_t)128 << 10)

/* Appends the file to b; more than max bytes is TH_R_TOO_LARGE. TH_R_NOT_FOUND when missing. */
int th_io_read_file(const char *path, size_t max, struct th_buf *b, struct th_err *err) TH_MUST_USE;
int th_io_read_fd(int fd, size_t max, struct th_buf *b, struct th_err *err) TH_MUST_USE;
/* Atomic and durable: temporary file beside it, fsync, rename, fsync of the folder. */
int th_io_write_atomic(const char *path, const void *p, size_t n, mode_t mode,
                       struct th_err *err) TH_MUST_USE;
/* Plain write, for /proc, /sys and cgroup files. */
int th_io_write_file(const char *path, const void *p, size_t n, mode_t mode,
                     struct th_err *err) TH_MUST_USE;
int th_io_write_all(int fd, const void *p, size_t n, struct th_err *err) TH_MUST_USE;
int th_io_mkdir_p(const char *path, mode_t mode, struct th_err *err) TH_MUST_USE;
/* Removes a tree without following symbolic links or crossing into other mounts; a missing path
 * is success. */
int th_io_rm_rf(const char *path, struct th_err *err);
bool th_io_exists(const char *path);
bool th_io_is_dir(const char *path);
/* Names in a folder without . and .., sorted. */
int th_io_list(const char *path, struct th_strv *ret, struct th_err *err) TH_MUST_USE;
/* fcntl-free whole-file lock (flock) on path, made when missing. -TH_R_LOCKED at once if another
 * process holds it and wait_ms is 0; else after waiting. ret_fd holds the lock until closed. */
int th_io_lock(const char *path, int64_t wait_ms, int *ret_fd, struct th_err *err) TH_MUST_USE;
int th_io_set_nonblock(int fd, bool on);
int th_io_set_cloexec(int fd, bool on);
/* "a/b" from "a" and "b" with one slash between; the caller frees. */
char *th_path_join(const char *a, const char *b) __attribute__((returns_nonnull));
char *th_path_joinf(const char *a, const char *fmt, ...) TH_PRINTF(2, 3)
    __attribute__((returns_nonnull));
const char *th_path_base(const char *path); /* after the last slash */
/* true when rel stays inside a root: not absolute, no ".." part. */
bool th_path_is_inside(const char *rel);
/* Unix stream sockets. A path longer than sun_path is handled through /proc/self/fd. */
int th_io_unix_listen(const char *path, mode_t mode, int backlog,
                      struct th_err *err);                    /* fd or <0 */
int th_io_unix_connect(const char *path, struct th_err *err); /* fd or <0 */
#endif
