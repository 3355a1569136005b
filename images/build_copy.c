/* COPY and ADD.
 *
 * Sources are found in the context (under .dockerignore), in another stage or image (mounted
 * read-only), or are heredocs written to a folder first; from there on all are folders with paths.
 * Every path is resolved inside its root by the kernel (openat2), so that a link in the context
 * cannot read the machine's files and a link in the image cannot make a copy land outside it.
 *
 * The cache key holds what the sources are: the tar bytes of each with times fixed, so that a fresh
 * checkout of the same files is the same step.
 *
 * Rules as in Docker: a folder's content is copied, not the folder; several sources or a trailing
 * slash make the destination a folder; wildcards that match nothing are passed over unless nothing
 * matches at all; the context's files become root's, another stage's keep their owner; --chown and
 * --chmod decide otherwise. ADD unpacks local tar files (plain, gzip, zstd).
 */
#include "images/builder_priv.h"
#include "base/clock.h"
#include "base/io.h"
#include "images/content_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

struct copy {
    struct build *b;
    struct bstage *st;
    const struct th_df_inst *in;
    const char *root;          /* where sources live */
    bool from_context;
    bool is_add;
    struct th_strv sources;    /* relative to root, no leading slash; "" is all of it */
    struct th_strv globs;      /* --exclude */
    char *dest;                /* absolute in the image */
    bool dest_is_dir;
    bool chown;
    char *chown_spec;
    uint32_t uid, gid;
    int chmod;                 /* -1: as the source */
    const char *filter_prefix; /* of the source at work */
    const char *only;          /* single file: its name */
};

static bool left_out(const struct copy *c, const char *rel, const char *inner)
{
    if (c->from_context && th_ignore_match(c->b->ignore, rel)) {
        return true;
    }
    for (size_t i = 0; i < c->globs.n; i++) {
        if (th_glob_match(c->globs.v[i], inner)) {
            return true;
        }
    }
    return false;
}

static bool hash_filter(void *arg, const char *rel, bool is_dir)
{
    struct copy *c = arg;
    if (c->only) {
        return th_streq(rel, c->only);
    }
    th_autofree char *full = *c->filter_prefix ? th_xasprintf("%s/%s", c->filter_prefix, rel)
                                               : th_xstrdup(rel);
    return !left_out(c, full, rel) ||
           (is_dir && c->from_context && th_ignore_must_descend(c->b->ignore, full));
}

static char *clean_rel(const char *p)
{
    th_autostrv struct th_strv parts = TH_STRV_INIT, out = TH_STRV_INIT;
    th_strv_split(&parts, p, '/');
    for (size_t i = 0; i < parts.n; i++) {
        if (!*parts.v[i] || th_streq(parts.v[i], ".")) {
            continue;
        }
        if (th_streq(parts.v[i], "..")) { /* above the root is the root */
            if (out.n) {
                free(out.v[--out.n]);
                out.v[out.n] = NULL;
            }
            continue;
        }
        th_strv_add(&out, parts.v[i]);
    }
    return out.n ? th_strv_join(&out, "/") : th_xstrdup("");
}

/* ---- finding sources ---- */

static void expand_glob(struct copy *c, const char *done, const char *rest)
{
    size_t n = strcspn(rest, "/");
    th_autofree char *seg = th_xstrndup(rest, n);
    const char *next = rest[n] ? rest + n + 1 : NULL;
    th_autofree char *dir = NULL;
    th_autostrv struct th_strv names = TH_STRV_INIT;
    if (b_resolve_in(c->root, done, &dir, NULL) < 0 || th_io_list(dir, &names, NULL) < 0) {
        return;
    }
    for (size_t i = 0; i < names.n; i++) {
        if (!th_glob_match(seg, names.v[i])) {
            continue;
        }
        th_autofree char *path = *done ? th_xasprintf("%s/%s", done, names.v[i])
                                       : th_xstrdup(names.v[i]);
        if (next) {
            expand_glob(c, path, next);
        } else if (!(c->from_context && th_ignore_match(c->b->ignore, path))) {
            th_strv_add(&c->sources, path);
        }
    }
}

static int missing(struct copy *c, const char *src, struct th_err *err)
{
    (void)b_fault(c->b, TH_R_BUILD_FAILED, err, "%s: \"/%s\": not found", th_df_op_name(c->in->op),
                  src);
    return c->from_context
               ? th_hint(err, "the path is relative to the build context, and must not be left "
                              "out by .dockerignore")
               : th_hint(err, "look at what the stage or image named by --from really holds");
}

static int add_source(struct copy *c, const char *word, struct th_err *err)
{
    if (strpbrk(word, "*?[")) {
        const char *w = word + strspn(word, "/");
        while (w[0] == '.' && w[1] == '/') {
            w += 2;
        }
        expand_glob(c, "", w);
        return 0;
    }
    th_autofree char *rel = clean_rel(word);
    th_autoclose int fd = b_open_in(c->root, rel, O_PATH);
    bool ignored = *rel && c->from_context && th_ignore_match(c->b->ignore, rel) &&
                   !th_ignore_must_descend(c->b->ignore, rel);
    if (fd < 0 || ignored) {
        return missing(c, rel, err);
    }
    th_strv_add(&c->sources, rel);
    return 0;
}

/* ---- the cache key ---- */

static int sha_write(void *arg, const void *p, size_t n, struct th_err *err)
{
    (void)err;
    th_sha256_add(arg, p, n);
    return 0;
}

static int hash_source(struct copy *c, struct th_sha256 *h, const char *rel, struct th_err *err)
{
    th_autofree char *path = NULL;
    TH_TRY(b_resolve_in(c->root, rel, &path, err));
    struct stat st;
    if (stat(path, &st) < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "%s", rel);
    }
    struct th_layer_write_opts o = {.mtime_fixed = true,
                                    .owner_root = c->from_context || c->chown,
                                    .filter = hash_filter,
                                    .filter_arg = c};
    struct th_tar_writer w;
    th_tar_writer_init(&w, (struct th_writer){sha_write, h});
    c->filter_prefix = rel;
    if (S_ISDIR(st.st_mode)) {
        return th_layer_write(path, &o, &w, NULL, err);
    }
    th_autofree char *dir = th_xstrndup(path, (size_t)(th_path_base(path) - path));
    c->only = th_path_base(path);
    int r = th_layer_write(dir, &o, &w, NULL, err);
    c->only = NULL;
    return r;
}

static int make_key(struct copy *c, char key[TH_SHA256_HEX_LEN], struct th_err *err)
{
    struct th_sha256 *h = b_key_begin(c->st, c->is_add ? "ADD" : "COPY");
    char mode[16];
    (void)snprintf(mode, sizeof(mode), "%d", c->chmod);
    b_key_add(h, "dest", c->dest);
    b_key_add(h, "dir", c->dest_is_dir ? "1" : "0");
    b_key_add(h, "chown", c->chown_spec);
    b_key_add(h, "chmod", mode);
    int r = 0;
    for (size_t i = 0; r >= 0 && i < c->globs.n; i++) {
        b_key_add(h, "exclude", c->globs.v[i]);
    }
    for (size_t i = 0; r >= 0 && i < c->sources.n; i++) {
        b_key_add(h, "src", c->sources.v[i]);
        r = hash_source(c, h, c->sources.v[i], err);
    }
    b_key_end(h, key);
    return r;
}

/* ---- copying ---- */

static int set_meta(struct copy *c, int dfd, const char *name, const struct stat *st,
                    struct th_err *err)
{
    uid_t uid = c->chown ? c->uid : c->from_context ? 0 : st->st_uid;
    gid_t gid = c->chown ? c->gid : c->from_context ? 0 : st->st_gid;
    mode_t mode = c->chmod >= 0 ? (mode_t)c->chmod : st->st_mode & 07777;
    struct timespec t[2] = {st->st_mtim, st->st_mtim};
    if (fchownat(dfd, name, uid, gid, AT_SYMLINK_NOFOLLOW) < 0 ||
        (!S_ISLNK(st->st_mode) && fchmodat(dfd, name, mode, 0) < 0) ||
        utimensat(dfd, name, t, AT_SYMLINK_NOFOLLOW) < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "set owner and mode of %s", name);
    }
    return 0;
}

static void copy_caps(int sfd, int tfd)
{
    char v[256];
    ssize_t n = fgetxattr(sfd, "security.capability", v, sizeof(v));
    if (n > 0) {
        (void)fsetxattr(tfd, "security.capability", v, (size_t)n, 0);
    }
}

static int copy_file(struct copy *c, int sdir, const char *sname, int tdir, const char *tname,
                     const struct stat *st, struct th_err *err)
{
    th_autoclose int in = openat(sdir, sname, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    th_autoclose int out =
        openat(tdir, tname, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (in < 0 || out < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "copy %s", sname);
    }
    th_autofree char *buf = th_xmalloc(TH_IO_COPY_BUF);
    for (;;) {
        ssize_t n = read(in, buf, TH_IO_COPY_BUF);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return th_fail_errno(err, errno, TH_R_IO, "read %s", sname);
        }
        if (n == 0) {
            break;
        }
        TH_TRY(th_io_write_all(out, buf, (size_t)n, err));
    }
    TH_TRY(set_meta(c, tdir, tname, st, err));
    if (!c->from_context && !c->chown) {
        copy_caps(in, out);
    }
    return 0;
}

static int copy_dir(struct copy *c, int sfd, int tfd, const char *rel, const char *inner,
                    struct th_err *err);

/* Whatever is at tname gives way; a folder stays for a folder. */
static int make_way(int tdir, const char *tname, bool want_dir, bool *ret_exists,
                    struct th_err *err)
{
    struct stat st;
    *ret_exists = false;
    if (fstatat(tdir, tname, &st, AT_SYMLINK_NOFOLLOW) < 0) {
        return errno == ENOENT ? 0 : th_fail_errno(err, errno, TH_R_IO, "%s", tname);
    }
    if (S_ISDIR(st.st_mode)) {
        *ret_exists = want_dir;
        return want_dir ? 0
                        : th_fail(err, TH_R_BUILD_FAILED,
                                  "cannot copy a file over the folder %s", tname);
    }
    if (unlinkat(tdir, tname, 0) < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "replace %s", tname);
    }
    return 0;
}

static int copy_node(struct copy *c, int sdir, const char *sname, int tdir, const char *tname,
                     const char *rel, const char *inner, struct th_err *err)
{
    struct stat st;
    bool exists = false;
    if (fstatat(sdir, sname, &st, AT_SYMLINK_NOFOLLOW) < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "%s", rel);
    }
    if (S_ISSOCK(st.st_mode)) {
        return 0;
    }
    TH_TRY(make_way(tdir, tname, S_ISDIR(st.st_mode), &exists, err));
    if (S_ISREG(st.st_mode)) {
        return copy_file(c, sdir, sname, tdir, tname, &st, err);
    }
    if (S_ISLNK(st.st_mode)) {
        char target[4097] = {0};
        if (readlinkat(sdir, sname, target, sizeof(target) - 1) < 0 ||
            symlinkat(target, tdir, tname) < 0) {
            return th_fail_errno(err, errno, TH_R_IO, "copy link %s", rel);
        }
        return set_meta(c, tdir, tname, &st, err);
    }
    if (S_ISDIR(st.st_mode)) {
        if (!exists && mkdirat(tdir, tname, 0700) < 0) {
            return th_fail_errno(err, errno, TH_R_IO, "make folder %s", tname);
        }
        th_autoclose int sfd = openat(sdir, sname, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        th_autoclose int tfd = openat(tdir, tname, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (sfd < 0 || tfd < 0) {
            return th_fail_errno(err, errno, TH_R_IO, "open %s", rel);
        }
        TH_TRY(copy_dir(c, sfd, tfd, rel, inner, err));
        return exists ? 0 : set_meta(c, tdir, tname, &st, err);
    }
    if (c->from_context) {
        return th_fail(err, TH_R_BUILD_FAILED, "%s is neither a file, a folder nor a link", rel);
    }
    if (mknodat(tdir, tname, st.st_mode, st.st_rdev) < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "make %s", tname);
    }
    return set_meta(c, tdir, tname, &st, err);
}

static int copy_dir(struct copy *c, int sfd, int tfd, const char *rel, const char *inner,
                    struct th_err *err)
{
    th_autofree char *self = th_xasprintf("/proc/self/fd/%d", sfd);
    th_autostrv struct th_strv names = TH_STRV_INIT;
    TH_TRY(th_io_list(self, &names, err));
    for (size_t i = 0; i < names.n; i++) {
        th_autofree char *r = *rel ? th_xasprintf("%s/%s", rel, names.v[i])
                                   : th_xstrdup(names.v[i]);
        th_autofree char *in = *inner ? th_xasprintf("%s/%s", inner, names.v[i])
                                      : th_xstrdup(names.v[i]);
        struct stat st;
        bool dir = fstatat(sfd, names.v[i], &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode);
        if (left_out(c, r, in) &&
            !(dir && c->from_context && th_ignore_must_descend(c->b->ignore, r))) {
            continue;
        }
        TH_TRY(copy_node(c, sfd, names.v[i], tfd, names.v[i], r, in, err));
    }
    return 0;
}

/* Opens (making it) a folder of the image; new ones belong to --chown's owner or root. */
static int open_dest_dir(struct copy *c, const char *root, const char *path, struct th_err *err)
{
    th_autofree char *rel = clean_rel(path);
    th_autostrv struct th_strv parts = TH_STRV_INIT;
    th_autobuf struct th_buf at = TH_BUF_INIT;
    th_strv_split(&parts, rel, '/');
    int fd = b_open_in(root, "", O_RDONLY | O_DIRECTORY);
    for (size_t i = 0; fd >= 0 && i < parts.n && *parts.v[i]; i++) {
        th_buf_printf(&at, "%s%s", i ? "/" : "", parts.v[i]);
        int next = b_open_in(root, th_buf_cstr(&at), O_RDONLY | O_DIRECTORY);
        if (next < 0 && errno == ENOENT) {
            if (mkdirat(fd, parts.v[i], 0755) == 0 && c->chown) {
                (void)fchownat(fd, parts.v[i], c->uid, c->gid, AT_SYMLINK_NOFOLLOW);
            }
            next = b_open_in(root, th_buf_cstr(&at), O_RDONLY | O_DIRECTORY);
        }
        int e = errno;
        (void)close(fd);
        fd = next;
        errno = e;
    }
    return fd >= 0 ? fd : th_fail_errno(err, errno, TH_R_BUILD_FAILED, "destination /%s", rel);
}

/* ADD: a tar file is unpacked. 1 when it was one. */
static int try_unpack(struct copy *c, int sfd, int tdir, struct th_err *err)
{
    unsigned char h[6] = {0};
    if (pread(sfd, h, sizeof(h), 0) < 0) {
        return 0;
    }
    if (memcmp(h, "BZh", 3) == 0 || memcmp(h, "\xfd" "7zXZ", 5) == 0) {
        (void)b_fault(c->b, TH_R_UNSUPPORTED, err, "ADD unpacks plain, gzip and zstd archives, not "
                      "bzip2 or xz");
        return th_hint(err, "unpack it in a RUN step, or compress it with gzip");
    }
    TH_AUTO(th_decomp) struct th_decomp *probe = th_decomp_new(th_reader_fd(sfd));
    TH_AUTO(th_tar_reader) struct th_tar_reader *t = th_tar_reader_new(th_decomp_reader(probe));
    const struct th_tar_entry *e = NULL;
    TH_AUTO_ERR struct th_err none = TH_ERR_INIT;
    int is_tar = th_tar_next(t, &e, &none);
    if (lseek(sfd, 0, SEEK_SET) < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "read archive");
    }
    if (is_tar <= 0) {
        return 0;
    }
    TH_AUTO(th_decomp) struct th_decomp *d = th_decomp_new(th_reader_fd(sfd));
    th_autofree char *dir = th_xasprintf("/proc/self/fd/%d", tdir);
    struct th_layer_apply_opts o = {.keep_owner = true, .keep_xattrs = true};
    TH_TRY(th_layer_apply(th_decomp_reader(d), dir, &o, NULL, err));
    return 1;
}

static int copy_file_source(struct copy *c, const char *root, const char *rel, const char *path,
                            struct th_err *err)
{
    const char *sname = th_path_base(path);
    th_autofree char *sdirname = th_xstrndup(path, (size_t)(sname - path));
    th_autoclose int sdir = open(sdirname, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (sdir < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "open %s", sdirname);
    }
    if (c->is_add) {
        th_autoclose int sfd = open(path, O_RDONLY | O_CLOEXEC);
        th_autoclose int tdir = sfd < 0 ? -1 : open_dest_dir(c, root, c->dest, NULL);
        int r = tdir < 0 ? 0 : try_unpack(c, sfd, tdir, err);
        if (r != 0) {
            return r < 0 ? r : 0;
        }
    }
    th_autoclose int isdir = b_open_in(root, c->dest, O_PATH | O_DIRECTORY);
    bool into = c->dest_is_dir || isdir >= 0;
    th_autofree char *clean = clean_rel(c->dest);
    const char *base = th_path_base(clean);
    th_autofree char *parent =
        into ? th_xstrdup(clean) : th_xstrndup(clean, (size_t)(base - clean));
    /* a link keeps its own name in the image though what it leads to is copied */
    const char *tname = into ? th_path_base(rel) : base;
    th_autoclose int tdir = open_dest_dir(c, root, parent, err);
    if (tdir < 0) {
        return tdir;
    }
    return copy_node(c, sdir, sname, tdir, tname, rel, "", err);
}

static int copy_source(struct copy *c, const char *root, const char *rel, struct th_err *err)
{
    th_autofree char *path = NULL;
    struct stat st;
    TH_TRY(b_resolve_in(c->root, rel, &path, err));
    if (stat(path, &st) < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "%s", rel);
    }
    if (!S_ISDIR(st.st_mode)) {
        return copy_file_source(c, root, rel, path, err);
    }
    th_autoclose int sfd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    th_autoclose int tfd = sfd < 0 ? -1 : open_dest_dir(c, root, c->dest, err);
    if (sfd < 0 || tfd < 0) {
        return sfd < 0 ? th_fail_errno(err, errno, TH_R_IO, "open %s", path) : tfd;
    }
    return copy_dir(c, sfd, tfd, rel, "", err);
}

static int do_copy(struct copy *c, struct broot *r, struct th_err *err)
{
    if (c->chown) {
        TH_TRY(th_image_user(r->root, c->chown_spec, &c->uid, &c->gid, NULL, NULL, NULL, err));
        if (!strchr(c->chown_spec, ':')) {
            c->gid = c->gid ? c->gid : c->uid; /* "--chown=1000" means 1000:1000 */
        }
    }
    for (size_t i = 0; i < c->sources.n; i++) {
        TH_TRY(copy_source(c, r->root, c->sources.v[i], err));
    }
    return 0;
}

/* ---- the instruction ---- */

static int take_flags(struct copy *c, struct th_err *err)
{
    const char *chmod_s = th_df_flag(c->in, "chmod");
    c->chmod = -1;
    for (size_t i = 0; i < c->in->n_flags; i++) {
        const struct th_df_flag *f = &c->in->flags[i];
        if (th_streq(f->name, "exclude")) {
            th_autofree char *w = NULL;
            TH_TRY(b_expand(c->b, c->st, f->value, &w, err));
            th_strv_add(&c->globs, w);
        } else if (th_streq(f->name, "parents") || th_streq(f->name, "checksum") ||
                   th_streq(f->name, "keep-git-dir") || th_streq(f->name, "unpack")) {
            return b_fault(c->b, TH_R_UNSUPPORTED, err, "--%s is not supported", f->name);
        }
    }
    const char *chown_s = th_df_flag(c->in, "chown");
    if (chown_s) {
        TH_TRY(b_expand(c->b, c->st, chown_s, &c->chown_spec, err));
        c->chown = *c->chown_spec != 0;
    }
    if (chmod_s) {
        th_autofree char *w = NULL;
        TH_TRY(b_expand(c->b, c->st, chmod_s, &w, err));
        char *end = NULL;
        long v = strtol(w, &end, 8);
        if (!*w || *end || v < 0 || v > 07777) {
            return b_fault(c->b, TH_R_DOCKERFILE, err,
                           "invalid chmod parameter: '%s'. it should be octal string and between "
                           "0 and 07777", w);
        }
        c->chmod = (int)v;
    }
    return 0;
}

static int take_heredocs(struct copy *c, const char *dir, struct th_err *err)
{
    TH_TRY(th_io_mkdir_p(dir, 0755, err));
    for (size_t i = 0; i < c->in->n_heredocs; i++) {
        const struct th_df_heredoc *h = &c->in->heredocs[i];
        th_autofree char *text = NULL;
        if (h->expand) {
            TH_TRY(b_expand(c->b, c->st, h->text, &text, err));
        } else {
            text = th_xstrdup(h->text);
        }
        if (strchr(h->name, '/') || th_streq(h->name, ".") || th_streq(h->name, "..")) {
            return b_fault(c->b, TH_R_DOCKERFILE, err, "heredoc name \"%s\" is not a file name",
                           h->name);
        }
        th_autofree char *p = th_path_join(dir, h->name);
        TH_TRY(th_io_write_file(p, text, strlen(text), 0644, err));
        th_strv_add(&c->sources, h->name);
    }
    return 0;
}

static int take_sources(struct copy *c, const struct th_strv *words, struct th_err *err)
{
    for (size_t i = 0; i + 1 < words->n; i++) {
        const char *w = words->v[i];
        if (c->is_add && (th_startswith(w, "http://") || th_startswith(w, "https://") ||
                          th_startswith(w, "git@") || th_startswith(w, "git://"))) {
            (void)b_fault(c->b, TH_R_UNSUPPORTED, err,
                          "ADD of a URL is not supported: builds use no network");
            return th_hint(err, "download %s into the build context and COPY it", w);
        }
        TH_TRY(add_source(c, w, err));
    }
    if (c->sources.n == 0) {
        (void)b_fault(c->b, TH_R_BUILD_FAILED, err, "%s: no source files were specified",
                      th_df_op_name(c->in->op));
        return th_hint(err, "no file of the context matches the pattern");
    }
    return 0;
}

static int perform(struct copy *c, struct th_err *err)
{
    char key[TH_SHA256_HEX_LEN];
    TH_TRY(make_key(c, key, err));
    if (b_cache_hit(c->b, c->st, key, err)) {
        return 0;
    }
    struct broot r = {0};
    TH_TRY(b_root_open(c->b, c->st->layers, c->st->n_layers, true, &r, err));
    int rc = do_copy(c, &r, err);
    if (rc < 0 && err && !strstr(err->msg ? err->msg : "", th_path_base(c->b->file))) {
        rc = th_wrap(err, "%s:%d: %s", th_path_base(c->b->file), c->in->line,
                     th_df_op_name(c->in->op));
    }
    rc = rc < 0 ? rc : b_commit(c->b, c->st, &r, key, err);
    b_root_close(&r);
    return rc;
}

/* Mounts what --from names; the caller closes *ret. */
static int open_from(struct build *b, struct bstage *st, const char *from, struct broot *ret,
                     struct th_err *err)
{
    int i = b_find_stage(b, from, (int)(st - b->stages));
    if (i >= 0) {
        return b_root_open(b, b->stages[i].layers, b->stages[i].n_layers, false, ret, err);
    }
    TH_AUTO(th_image) struct th_image *img = NULL;
    TH_TRY(b_base_image(b, from, &img, err));
    struct blayer *l = th_xcalloc(img->n_layers + 1, sizeof(*l));
    for (size_t k = 0; k < img->n_layers; k++) {
        (void)snprintf(l[k].diff_id, sizeof(l[k].diff_id), "%s", img->layers[k].diff_id);
        (void)snprintf(l[k].digest, sizeof(l[k].digest), "%s", img->layers[k].digest);
    }
    int r = b_root_open(b, l, img->n_layers, false, ret, err);
    free(l);
    return r;
}

static int with_words(struct copy *c, const struct th_strv *words, struct th_err *err)
{
    const char *dest = words->v[words->n - 1];
    const char *from = th_df_flag(c->in, "from");
    struct broot src = {0};
    th_autofree char *heredir = NULL;
    size_t n = strlen(dest);
    c->dest = b_abs(c->st, dest);
    c->dest_is_dir = n == 0 || dest[n - 1] == '/' || th_streq(dest, ".") ||
                     th_endswith(dest, "/.") || words->n > 2;
    c->from_context = !from;
    int r = 0;
    if (c->in->n_heredocs > 0) {
        heredir = th_images_session_file(c->b->ss, "heredoc");
        c->root = heredir;
        if (words->n != c->in->n_heredocs + 1) {
            return b_fault(c->b, TH_R_UNSUPPORTED, err,
                           "heredocs and files cannot be mixed in one %s",
                           th_df_op_name(c->in->op));
        }
        c->from_context = false;
        c->chown_spec = c->chown_spec ? c->chown_spec : th_xstrdup("0:0");
        c->chown = true;
        r = take_heredocs(c, heredir, err);
    } else if (from) {
        r = open_from(c->b, c->st, from, &src, err);
        c->root = src.root;
        r = r < 0 ? r : take_sources(c, words, err);
    } else {
        c->root = c->b->context;
        r = take_sources(c, words, err);
    }
    c->dest_is_dir = c->dest_is_dir || c->sources.n > 1;
    r = r < 0 ? r : perform(c, err);
    b_root_close(&src);
    if (heredir) {
        (void)th_io_rm_rf(heredir, NULL);
    }
    return r;
}

int b_copy(struct build *b, struct bstage *st, const struct th_df_inst *in, struct th_err *err)
{
    struct copy c = {.b = b, .st = st, .in = in, .is_add = in->op == TH_DF_ADD};
    th_autostrv struct th_strv words = TH_STRV_INIT;
    size_t before = st->n_layers;
    int r = take_flags(&c, err);
    for (size_t i = 0; r >= 0 && i < in->args.n; i++) {
        char *w = NULL;
        bool here = in->n_heredocs > 0 && i + 1 < in->args.n;
        if (here) { /* "<<EOF" is not a variable's business */
            w = th_xstrdup(in->args.v[i]);
        } else {
            r = b_expand(b, st, in->args.v[i], &w, err);
        }
        if (r >= 0) {
            th_strv_take(&words, w);
        }
    }
    r = r < 0 ? r : with_words(&c, &words, err);
    if (r >= 0) {
        th_autofree char *by = th_xasprintf("%s # buildkit", in->original);
        b_history(st, by, st->n_layers == before);
    }
    th_strv_done(&c.sources);
    th_strv_done(&c.globs);
    free(c.dest);
    free(c.chown_spec);
    return r;
}
