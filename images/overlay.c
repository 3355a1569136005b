/* Mounting an image's root.
 *
 * mount(2) takes one page of options, which some forty layers with long paths fill. Above that the
 * lowers are named by descriptors (/proc/self/fd/N), which fits some two hundred; overlay itself
 * stops at 500. redirect_dir, index and metacopy stay off, whatever the kernel's default: an upper
 * folder then is plain enough to be read back as a layer and to become another overlay's lower.
 */
#include "images/layer.h"
#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mount.h>

#define PAGE_OPTIONS 4000
#define LOWERS_MAX 200

static void add_path(struct th_buf *b, const char *path)
{
    for (; *path; path++) { /* overlay splits at ':' and ',' */
        if (*path == ':' || *path == ',' || *path == '\\') {
            th_buf_putc(b, '\\');
        }
        th_buf_putc(b, *path);
    }
}

static int do_mount(const char *const *lowers, size_t n, const char *upper, const char *work,
                    const char *target, struct th_err *err)
{
    th_autobuf struct th_buf o = TH_BUF_INIT;
    th_buf_puts(&o, "redirect_dir=off,index=off,metacopy=off,lowerdir=");
    for (size_t i = 0; i < n; i++) {
        if (i > 0) {
            th_buf_putc(&o, ':');
        }
        add_path(&o, lowers[i]);
    }
    if (upper) {
        th_buf_puts(&o, ",upperdir=");
        add_path(&o, upper);
        th_buf_puts(&o, ",workdir=");
        add_path(&o, work);
    }
    if (o.n > PAGE_OPTIONS) {
        return th_fail(err, TH_R_TOO_LARGE, "image has too many layers to mount (%zu)", n);
    }
    if (mount("overlay", target, "overlay", upper ? 0 : MS_RDONLY, th_buf_cstr(&o)) < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "mount overlay at %s", target);
    }
    return 0;
}

static int mount_by_fd(const char *const *lowers, size_t n, const char *upper, const char *work,
                       const char *target, struct th_err *err)
{
    if (n > LOWERS_MAX) {
        return th_fail(err, TH_R_TOO_LARGE, "image has too many layers to mount (%zu)", n);
    }
    int fds[LOWERS_MAX];
    size_t opened = 0;
    int r = 0;
    th_autostrv struct th_strv names = TH_STRV_INIT;
    for (; opened < n; opened++) {
        fds[opened] = open(lowers[opened], O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (fds[opened] < 0) {
            r = th_fail_errno(err, errno, TH_R_IO, "open layer %s", lowers[opened]);
            break;
        }
        th_strv_addf(&names, "/proc/self/fd/%d", fds[opened]);
    }
    if (r == 0) {
        r = do_mount((const char *const *)names.v, n, upper, work, target, err);
    }
    for (size_t i = 0; i < opened; i++) {
        (void)close(fds[i]);
    }
    return r;
}

int th_overlay_mount(const char *const *lowers, size_t n_lowers, const char *upper,
                     const char *work, const char *target, struct th_err *err)
{
    TH_ASSERT(n_lowers > 0);
    size_t total = 160 + (upper ? strlen(upper) + strlen(work) : 0);
    for (size_t i = 0; i < n_lowers; i++) {
        total += strlen(lowers[i]) + 1;
    }
    if (total < PAGE_OPTIONS) {
        return do_mount(lowers, n_lowers, upper, work, target, err);
    }
    return mount_by_fd(lowers, n_lowers, upper, work, target, err);
}
