/* /logs/: the files of the node's log folder (/var/log; under the host driver the cluster's own), for
 * `kubectl get --raw /api/v1/nodes/NAME/proxy/logs/`.
 *
 * As upstream's: a folder is a page of links, one without a slash at its end is redirected to that with
 * one, a file is its bytes. Unlike upstream no link leads out of the folder, and nothing but folders and
 * plain files is opened (a fifo would hold the request). */
#include "base/encode.h"
#include "base/io.h"
#include "vm/node/server.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>

int logfiles_open(const char *root, const char *path, struct stat *ret_st, struct th_err *err)
{
    struct open_how how = {.flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY,
                           .resolve = RESOLVE_BENEATH};
    while (*path == '/') {
        path++;
    }
    th_autoclose int dir = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    th_autoclose int fd = dir < 0 ? -1 : (int)syscall(SYS_openat2, dir, *path ? path : ".", &how, sizeof(how));
    if (fd < 0 || fstat(fd, ret_st) < 0 || (!S_ISREG(ret_st->st_mode) && !S_ISDIR(ret_st->st_mode))) {
        return th_fail(err, TH_R_NOT_FOUND, "404 page not found\n");
    }
    int ret = fd;
    fd = -1;
    return ret;
}

static void put_html(struct th_buf *b, const char *s)
{
    for (; *s; s++) {
        switch (*s) {
        case '&': th_buf_puts(b, "&amp;"); break;
        case '<': th_buf_puts(b, "&lt;"); break;
        case '>': th_buf_puts(b, "&gt;"); break;
        case '"': th_buf_puts(b, "&#34;"); break;
        case '\'': th_buf_puts(b, "&#39;"); break;
        default: th_buf_putc(b, *s);
        }
    }
}

int logfiles_list(int fd, struct th_buf *b, struct th_err *err)
{
    th_autostrv struct th_strv names = TH_STRV_INIT;
    char self[32];
    (void)snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
    TH_TRY(th_io_list(self, &names, err));
    th_buf_puts(b, "<!doctype html>\n<meta name=\"viewport\" content=\"width=device-width\">\n<pre>\n");
    for (size_t i = 0; i < names.n; i++) {
        struct stat st;
        bool folder = fstatat(fd, names.v[i], &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode);
        th_buf_puts(b, "<a href=\"");
        th_url_escape(b, names.v[i]);
        th_buf_printf(b, "%s\">", folder ? "/" : "");
        put_html(b, names.v[i]);
        th_buf_printf(b, "%s</a>\n", folder ? "/" : "");
    }
    th_buf_puts(b, "</pre>\n");
    return 0;
}

/* What has no zero byte at its beginning is text. */
static const char *type_of(int fd)
{
    char head[512];
    ssize_t n = pread(fd, head, sizeof(head), 0);
    return n > 0 && memchr(head, 0, (size_t)n) ? "application/octet-stream" : "text/plain; charset=utf-8";
}

static enum MHD_Result answer(struct req *r, unsigned code, const char *header, const char *value,
                              struct MHD_Response *resp)
{
    (void)MHD_add_response_header(resp, header, value);
    enum MHD_Result ok = MHD_queue_response(r->c, code, resp);
    MHD_destroy_response(resp);
    return ok;
}

enum MHD_Result logfiles_request(struct req *r)
{
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    th_autofree char *root = th_path_join(r->a->o.log_dir, "..");
    const char *path = r->url + strlen("/logs");
    struct stat st;
    th_autoclose int fd = logfiles_open(root, path, &st, &err);
    if (fd < 0) {
        return reply_err(r, &err);
    }
    if (S_ISDIR(st.st_mode)) {
        if (*path && !th_endswith(path, "/")) {
            th_autobuf struct th_buf to = TH_BUF_INIT;
            th_url_escape(&to, strrchr(path, '/') + 1);
            th_buf_putc(&to, '/');
            return answer(r, 301, "Location", th_buf_cstr(&to),
                          MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT));
        }
        th_autobuf struct th_buf b = TH_BUF_INIT;
        if (logfiles_list(fd, &b, &err) < 0) {
            return reply_err(r, &err);
        }
        return reply_text(r, 200, "text/html; charset=utf-8", b.p, b.n);
    }
    const char *type = type_of(fd);
    struct MHD_Response *resp = MHD_create_response_from_fd((size_t)st.st_size, fd);
    if (!resp) {
        return MHD_NO;
    }
    fd = -1; /* the answer's now */
    return answer(r, 200, "Content-Type", type, resp);
}
