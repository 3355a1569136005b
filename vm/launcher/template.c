/* Templates on disk: cache/templates/<key>/ with `state` (QEMU's stream) and `info.json`.
 *
 * Booting a kernel is most of a start where the processor is emulated, and it comes to the same every
 * time. So the first start keeps the machine as it is when init is up and waits for an identity, and
 * later ones begin there. Nothing of any cluster is in it then: it fits every profile whose machine is
 * made of the same things.
 *
 * What those are is in the key. Everything that shapes the machine goes through one function (the
 * domain's XML), so the key is a hash of that, for a profile without a name, with size and time of the
 * files that it names. What does not fit any more is simply never found again, and goes when another
 * one is made: KEEP are kept, and none that was not used for KEEP_MS.
 *
 * One thing is measured anew each time and is never quite equal, the rate of the time stamp counter:
 * the kernel has learnt it when it booted. It is compared with a tolerance, for a clock that is wrong by
 * as much.
 *
 * A template is written beside its place, synced and renamed, so that one that is there is whole; its
 * hash is checked at each use all the same, for a guest with a few wrong bits would fail in ways that
 * nobody could explain. Hashing 60 MiB takes as long as libvirt's making of a machine, so both are done at
 * once; so are writing it to the disk and the rest of the first start.
 *
 * Whoever makes one holds a lock; a second start at the same time makes none. A reader holds none: it has
 * the files open, and they may be removed meanwhile. */
#include "vm/launcher/template.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/limits.h"
#include "vm/launcher/accel.h"
#include "vm/launcher/domain.h"
#include "vm/launcher/thin.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#define FORMAT 2 /* of the files, and of what init does before and after */
#define KEEP 4
#define KEEP_MS (30ll * 24 * 3600 * 1000)
#define ROOM_B (512ull << 20) /* free space without which none is made */
#define TSC_TOLERANCE_PPM 200

/* ---- the key ---- */

static void add_file(struct th_buf *b, const char *path)
{
    struct stat st;
    if (path && stat(path, &st) == 0) {
        th_buf_printf(b, "|%s %lld %lld.%09ld", path, (long long)st.st_size,
                      (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
    }
}

char *th_template_key(const struct th_machine_spec *spec, const char *emulator)
{
    char nobody[] = "template", nowhere[] = "/t/thimble", uuid[] = "00000000-0000-4000-8000-000000000000";
    struct th_profile p = {.name = nobody, .data = nowhere, .state = nowhere, .cache = nowhere,
                           .uuid = uuid, .memory_mb = spec->profile->memory_mb, .lock_fd = -1};
    struct th_machine_spec s = *spec;
    s.profile = &p;
    s.disk = s.control = s.qmp = s.console = nowhere;
    s.program = spec->program ? nowhere : NULL;
    s.ports = NULL;
    s.n_ports = 0;
    s.tsc_khz = spec->tsc_khz > 0;
    s.incoming = false;
    th_autobuf struct th_buf b = TH_BUF_INIT;
    th_domain_xml(&s, emulator, &b);
    th_autofree char *host = th_accel_key();
    th_buf_printf(&b, "|%d|%s|%s|%d GiB", FORMAT, TH_VERSION, host, spec->profile->disk_gb);
    const char *const files[] = {emulator, spec->kernel, spec->initramfs, spec->rootfs};
    for (size_t i = 0; i < TH_ARRAY_LEN(files); i++) {
        add_file(&b, files[i]);
    }
    char hex[TH_SHA256_HEX_LEN];
    th_sha256_hex(b.p, b.n, hex);
    return th_xstrndup(hex, 32);
}

static char *folder(const char *cache, const char *key)
{
    return th_path_joinf(cache, "templates/%s", key);
}

/* ---- hashing ---- */

static int hash_stream(int fd, int64_t *ret_size, char hex[TH_SHA256_HEX_LEN], struct th_err *err)
{
    th_autofree char *chunk = th_xmalloc(TH_IO_COPY_BUF);
    struct th_sha256 *sha = th_sha256_new();
    off_t at = 0;
    for (;;) {
        /* Not read(): QEMU shares the descriptor's place in the file. */
        ssize_t n = pread(fd, chunk, TH_IO_COPY_BUF, at);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            th_sha256_free(sha);
            return th_fail_errno(err, errno, TH_R_IO, "read the template");
        }
        if (n == 0) {
            break;
        }
        th_sha256_add(sha, chunk, (size_t)n);
        at += n;
    }
    unsigned char digest[TH_SHA256_LEN];
    th_sha256_finish(sha, digest);
    th_hex(digest, sizeof(digest), hex);
    *ret_size = (int64_t)at;
    return 0;
}

/* ---- use ---- */

static bool same_rate(int64_t a, int64_t b)
{
    int64_t off = a > b ? a - b : b - a;
    return off * 1000000 <= b * TSC_TOLERANCE_PPM;
}

static void *check_thread(void *arg)
{
    struct th_template *t = arg;
    char hex[TH_SHA256_HEX_LEN];
    int64_t size = 0;
    if (!same_rate(t->tsc_khz, th_tsc_khz())) {
        (void)th_fail(&t->check_err, TH_R_UNSUPPORTED, "the processor's time stamp counter had another rate");
    } else if (hash_stream(t->fd, &size, hex, &t->check_err) == 0 &&
               (size != t->size_b || !th_streq(hex, t->sha256))) {
        (void)th_fail(&t->check_err, TH_R_DIGEST_MISMATCH, "its content is not what was written");
    }
    return NULL;
}

static int read_info(struct th_template *t, struct th_err *err)
{
    th_autofree char *path = th_path_join(t->dir, "info.json");
    th_autobuf struct th_buf text = TH_BUF_INIT;
    TH_AUTO(th_json) struct th_json *o = NULL;
    TH_TRY(th_io_read_file(path, TH_LIMIT_CONFIG_FILE_B, &text, err));
    TH_TRY(th_json_parse(th_buf_cstr(&text), text.n, NULL, &o, err));
    const char *sha = th_json_path_str(o, "sha256");
    t->made_ms = th_json_path_int(o, "made_ms", 0);
    t->size_b = th_json_path_int(o, "size_b", -1);
    if (!sha || strlen(sha) != TH_SHA256_HEX_LEN - 1 || t->size_b <= 0) {
        return th_fail(err, TH_R_PARSE, "info.json says nothing useful");
    }
    memcpy(t->sha256, sha, TH_SHA256_HEX_LEN);
    t->tsc_khz = th_json_path_int(o, "tsc_khz", 0);
    (void)utimensat(AT_FDCWD, path, NULL, 0); /* used now: see prune */
    return 0;
}

int th_template_open(const char *cache, const char *key, struct th_template *ret, struct th_err *err)
{
    TH_AUTO_TEMPLATE struct th_template t = TH_TEMPLATE_INIT;
    t.dir = folder(cache, key);
    if (!th_io_is_dir(t.dir)) {
        return 0;
    }
    TH_TRY(read_info(&t, err));
    th_autofree char *path = th_path_join(t.dir, "state");
    t.fd = open(path, O_RDONLY | O_CLOEXEC);
    if (t.fd < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "state");
    }
    *ret = t;
    t = (struct th_template)TH_TEMPLATE_INIT;
    ret->checking = pthread_create(&ret->thread, NULL, check_thread, ret) == 0;
    if (!ret->checking) {
        (void)check_thread(ret);
    }
    return 1;
}

int th_template_checked(struct th_template *t, struct th_err *err)
{
    if (t->checking) {
        (void)pthread_join(t->thread, NULL);
        t->checking = false;
    }
    if (t->check_err.reason != TH_R_OK) {
        return th_fail(err, t->check_err.reason, "%s", t->check_err.msg);
    }
    return 0;
}

void th_template_done(struct th_template *t)
{
    if (t->checking) {
        (void)pthread_join(t->thread, NULL);
    }
    if (t->fd >= 0) {
        (void)close(t->fd);
    }
    free(t->dir);
    th_err_done(&t->check_err);
    *t = (struct th_template)TH_TEMPLATE_INIT;
}

void th_template_drop(const char *cache, const char *key)
{
    th_autofree char *dir = folder(cache, key);
    (void)th_io_rm_rf(dir, NULL);
}

int th_template_purge(const char *cache, struct th_err *err)
{
    th_autofree char *dir = th_path_join(cache, "templates");
    return th_io_rm_rf(dir, err);
}

/* ---- making ---- */

int th_template_begin(const char *cache, const char *key, int64_t tsc_khz,
                      struct th_template_maker *ret, struct th_err *err)
{
    th_autofree char *all = th_path_join(cache, "templates");
    TH_TRY(th_io_mkdir_p(all, 0700, err));
    struct statvfs v;
    if (statvfs(all, &v) == 0 && (uint64_t)v.f_bavail * v.f_frsize < ROOM_B) {
        return th_fail(err, TH_R_NO_SPACE, "less than %llu MiB are free in %s", ROOM_B >> 20, all);
    }
    th_autofree char *lock = th_path_join(all, "lock");
    th_autoclose int lock_fd = -1;
    TH_TRY(th_io_lock(lock, 0, &lock_fd, err));
    th_autofree char *part = th_path_joinf(all, "part"); /* one at a time; a crash may have left it */
    TH_TRY(th_io_rm_rf(part, err));
    TH_TRY(th_io_mkdir_p(part, 0700, err));
    th_autofree char *state = th_path_join(part, "state");
    th_autoclose int fd = open(state, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "%s", state);
    }
    *ret = (struct th_template_maker){.cache = th_xstrdup(cache), .key = th_xstrdup(key),
                                      .part = th_steal(&part), .fd = th_steal_fd(&fd),
                                      .lock_fd = th_steal_fd(&lock_fd), .tsc_khz = tsc_khz};
    return 0;
}

struct entry {
    char *name;
    int64_t used_ms;
};

static int newest_first(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    return x->used_ms < y->used_ms ? 1 : x->used_ms > y->used_ms ? -1 : 0;
}

static void prune(const char *cache)
{
    th_autofree char *all = th_path_join(cache, "templates");
    th_autostrv struct th_strv names = TH_STRV_INIT;
    if (th_io_list(all, &names, NULL) < 0) {
        return;
    }
    th_autofree struct entry *list = th_xcalloc(names.n + 1, sizeof(*list));
    size_t n = 0;
    for (size_t i = 0; i < names.n; i++) {
        th_autofree char *info = th_path_joinf(all, "%s/info.json", names.v[i]);
        struct stat st;
        if (stat(info, &st) == 0) {
            list[n++] = (struct entry){names.v[i], (int64_t)st.st_mtim.tv_sec * 1000 +
                                                       st.st_mtim.tv_nsec / 1000000};
        }
    }
    qsort(list, n, sizeof(*list), newest_first);
    for (size_t i = 0; i < n; i++) {
        if (i >= KEEP || th_now_ms() - list[i].used_ms > KEEP_MS) {
            th_template_drop(cache, list[i].name);
        }
    }
}

/* The stream without empty pages in its place, when it can be had; else it stays as it is. */
static int thin_out(struct th_template_maker *m, struct th_err *err)
{
    struct stat st;
    if (fstat(m->fd, &st) < 0 || st.st_size <= 0) {
        return th_fail_errno(err, errno, TH_R_IO, "the template");
    }
    th_autofree char *state = th_path_join(m->part, "state");
    th_autofree char *thin = th_path_join(m->part, "thin");
    th_autoclose int fd = open(thin, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    void *stream = fd < 0 ? MAP_FAILED : mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, m->fd, 0);
    if (stream == MAP_FAILED) {
        return th_fail_errno(err, errno, TH_R_IO, "%s", thin);
    }
    int r = th_thin_stream(stream, (size_t)st.st_size, fd, err);
    (void)munmap(stream, (size_t)st.st_size);
    if (r <= 0) {
        (void)unlink(thin);
        return r;
    }
    if (rename(thin, state) < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "%s", state);
    }
    (void)close(m->fd);
    m->fd = th_steal_fd(&fd);
    return 0;
}

static int put_in_place(struct th_template_maker *m, struct th_err *err)
{
    char hex[TH_SHA256_HEX_LEN];
    int64_t size = 0;
    TH_TRY(thin_out(m, err));
    TH_TRY(hash_stream(m->fd, &size, hex, err));
    if (fsync(m->fd) < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "write the template");
    }
    TH_AUTO(th_json) struct th_json *o =
        th_json_build("{'made_ms':%d,'size_b':%d,'sha256':%s,'tsc_khz':%d,'version':%s}", th_now_ms(),
                      size, hex, m->tsc_khz, TH_VERSION);
    th_autobuf struct th_buf text = TH_BUF_INIT;
    th_json_dump(o, &text);
    th_buf_putc(&text, '\n');
    th_autofree char *info = th_path_join(m->part, "info.json");
    TH_TRY(th_io_write_atomic(info, text.p, text.n, 0600, err));
    th_template_drop(m->cache, m->key);
    th_autofree char *dir = folder(m->cache, m->key);
    if (rename(m->part, dir) < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "%s", dir);
    }
    prune(m->cache);
    return 0;
}

static void *finish_thread(void *arg)
{
    struct th_template_maker *m = arg;
    (void)put_in_place(m, &m->err);
    return NULL;
}

void th_template_finish(struct th_template_maker *m)
{
    m->finishing = true;
    if (pthread_create(&m->thread, NULL, finish_thread, m) != 0) {
        m->finishing = false;
        (void)th_fail(&m->err, TH_R_INTERNAL, "no thread");
    }
}

int th_template_end(struct th_template_maker *m, struct th_err *err)
{
    bool whole = m->finishing;
    if (m->finishing) {
        (void)pthread_join(m->thread, NULL);
        m->finishing = false;
    }
    whole = whole && m->err.reason == TH_R_OK;
    if (m->part && !whole) {
        (void)th_io_rm_rf(m->part, NULL);
    }
    if (m->fd >= 0) {
        (void)close(m->fd);
    }
    if (m->lock_fd >= 0) {
        (void)close(m->lock_fd);
    }
    int r = whole || m->err.reason == TH_R_OK ? 0 : th_fail(err, m->err.reason, "%s", m->err.msg);
    free(m->cache);
    free(m->key);
    free(m->part);
    th_err_done(&m->err);
    *m = (struct th_template_maker)TH_TEMPLATE_MAKER_INIT;
    return r;
}
